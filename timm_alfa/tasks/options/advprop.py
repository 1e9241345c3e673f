"""Options of AdvProp; the defaults are the paper's (n = eps + 1 steps)."""

from dataclasses import dataclass

from timm_alfa.tasks.options.pixel import PixelConfig


@dataclass(frozen=True)
class AdvPropConfig(PixelConfig):
    """Options of AdvProp; the defaults are the paper's (n = eps + 1 steps)."""
