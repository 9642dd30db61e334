"""What tests and benchmarks share: settings, certificates, tokens, and stacks of their own."""
