"""Upgrades: the path, the journal, and what is refused."""
