"""The settings of a stack: reading them, with types and defaults, and everything that is checked about them."""
