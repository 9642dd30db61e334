"""The images of a stack: which they are, one archive of them, and copies in a private registry."""
