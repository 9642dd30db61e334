"""A stack on this machine: its files, keys, clients, and what is rendered from its settings."""
