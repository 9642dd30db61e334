"""The nginx edge: what its templates read, and the checks of what they render."""
