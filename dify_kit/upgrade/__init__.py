"""Upgrades of a stack on Docker to a newer release of Dify, step by step, and the way back."""
