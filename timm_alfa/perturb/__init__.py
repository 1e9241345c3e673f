"""Perturbations: ascent steps, projections, pixels, PGD, and the loss scale of fp16 searches."""
