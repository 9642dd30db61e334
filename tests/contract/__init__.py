"""The stand-in against what a real Dify answered."""
