"""Archives of a stack: writing, reading, restoring."""
