"""Tests an operator runs against a deployed environment, production included."""
