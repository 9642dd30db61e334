"""Releases of Dify against this kit: read an official compose folder, compare, import."""
