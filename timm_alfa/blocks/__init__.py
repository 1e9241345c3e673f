"""Which module of a model a block spec names: the grammar, and the rules for families of models."""

from timm_alfa.blocks.spec import feature_shape, resolve_blocks

__all__ = ['feature_shape', 'resolve_blocks']
