"""Loaders: in memory or with worker processes, in an order that is a function of (seed, epoch)."""
