"""Scripts that run inside containers, each a file of its own that needs nothing else of this package."""
