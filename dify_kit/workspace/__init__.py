"""Where a stack lives on this machine: state, passphrase, settings and their secrets."""
