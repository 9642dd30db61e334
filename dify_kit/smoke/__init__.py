"""Runs the smoke tests as a command, once or again and again for Prometheus."""
