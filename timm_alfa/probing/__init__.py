"""Where to perturb, and how strongly: what a step of ALFA does at each block, measured before any training."""
