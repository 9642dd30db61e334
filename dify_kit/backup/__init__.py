"""Copies of a whole stack: one encrypted archive, made while it serves, from which another machine makes it again."""
