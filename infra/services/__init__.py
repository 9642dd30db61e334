"""The services of the stack, tier by tier: pure functions from settings and release to descriptions."""
