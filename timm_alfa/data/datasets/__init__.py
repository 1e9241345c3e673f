"""Kinds of data sets: what `--dataset` names, and how each one is read."""
