"""One optimizer update: the step, what processes agree on, and its sums."""
