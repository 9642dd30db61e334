"""Tests that an operator runs against any deployed environment, production included.

They read, send messages to an app of their own, delete the conversations they create, and never sign in.
"""
