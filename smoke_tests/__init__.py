"""Tests that an operator runs against any deployed environment, production included.

They read, they talk to an app of their own, they delete the conversations they made, and they never sign in.
"""
