"""Tests without an engine."""
