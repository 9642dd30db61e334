"""Measures a deployed stack, or any base URL, within bounds."""
