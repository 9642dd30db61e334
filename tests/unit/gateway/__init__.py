"""Tests of the OAuth gateway, without an engine."""
