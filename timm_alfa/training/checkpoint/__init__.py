"""Training states and weights: what is saved, how, and how a run resumes from it."""
