"""The tests of dify-kit."""
