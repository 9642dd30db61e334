"""Figures of the kit, measured beside its peers: `python -m bench`."""
