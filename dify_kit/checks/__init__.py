"""Checks of this machine and of a stack."""
