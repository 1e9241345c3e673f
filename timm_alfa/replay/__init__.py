"""Run a model once, then only the part of it that follows a feature."""
