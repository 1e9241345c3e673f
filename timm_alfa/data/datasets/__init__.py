"""Kinds of datasets: what `--dataset` names, and how each one is read."""
