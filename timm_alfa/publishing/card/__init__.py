"""The model card of a published run."""
