"""What a probe found: as a table, as JSON, and as a picture."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Optional, Sequence

from timm_alfa.blocks.spec import shape_text
from timm_alfa.probing.tokens import Tokens
from timm_alfa.utils.text import printable


@dataclass(frozen=True)
class BlockProbe:
    """What a step of ALFA does at one block.

    Attributes:
        block: Name of its module.
        shape: Of the feature without its batch; a list of shapes if it has several tensors.
        rms: Root mean square of each tensor of the feature.
        cost: Operations of a step that perturbs this block, relative to standard training; None if they are unknown.
        rises: (perturbed loss - clean loss) / |clean loss| at each step size.
        step_size: The step size that raises the loss by the target, in multiples of the root mean square; None if that
            is outside of what was measured.
        step_size_absolute: The same in the feature's own units, for each of its tensors.
        outside: 'below' or 'above' the measured step sizes; empty if it is among them.
        tokens: How the gradient is distributed over the tokens of a transformer.
    """

    block: str
    shape: Any
    rms: tuple[float, ...]
    cost: Optional[float]
    rises: tuple[float, ...]
    step_size: Optional[float]
    step_size_absolute: Optional[tuple[float, ...]]
    outside: str = ''
    tokens: Optional[Tokens] = None


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found. `print` shows it as a table.

    Attributes:
        loss: The clean loss of the batch.
        steps: K, steps of each search.
        norm: Of the steps.
        gap: The target, a rise of the loss relative to the clean one.
        sizes: The step sizes that were tried, in multiples of the root mean square of a feature.
        blocks: A row for each block.
    """

    loss: float
    steps: int
    norm: str
    gap: float
    sizes: tuple[float, ...]
    blocks: tuple[BlockProbe, ...]

    def __str__(self) -> str:
        lines = [
            f'clean loss: {self.loss:.4g}',
            f'search: K={self.steps} steps, {self.norm}; step sizes in multiples of the RMS of the feature',
            f'columns: rise of the loss at each step size, and the step size that raises it by {_percent(self.gap)}',
            'cost: operations of a step that perturbs the block, relative to standard training',
            '',
            *_table(self._cells()),
        ]
        tokens = [f'{row.block}: the gradient reaches {row.tokens}' for row in self.blocks if row.tokens is not None]
        if tokens:
            lines += ['', *tokens]
        return printable('\n'.join(lines), keep='\n')

    def to_dict(self) -> dict[str, Any]:
        """The same as values that JSON holds; numbers that are not finite are None."""
        return _json_value(asdict(self))

    def to_png(self, title: str = '') -> bytes:
        """A picture: the rise of the loss at each block against the step size."""
        from timm_alfa.probing.picture import draw_rises

        return draw_rises(self, title)

    def _cells(self) -> list[list[str]]:
        titles = ['block', 'shape', 'RMS', 'cost', *(f'{size:g}' for size in self.sizes)]
        rows = [[*titles, f'{_percent(self.gap)} at', 'absolute']]
        for row in self.blocks:
            cost = '-' if row.cost is None else f'{row.cost:.2f}x'
            rises = map(_percent, row.rises)
            rows.append([row.block, shape_text(row.shape), _numbers(row.rms), cost, *rises, *self._step(row)])
        return rows

    def _step(self, row: BlockProbe) -> tuple[str, str]:
        if row.step_size is None or row.step_size_absolute is None:
            return (f'< {self.sizes[0]:g}' if row.outside == 'below' else f'> {self.sizes[-1]:g}'), '-'
        return f'{row.step_size:.3g}', _numbers(row.step_size_absolute)


def _numbers(values: Sequence[float]) -> str:
    return ' and '.join(f'{value:.3g}' for value in values)


def _percent(share: float) -> str:
    """A share in percent, with two digits or as many as a whole number has."""
    percent = 100 * share
    if not math.isfinite(percent):
        return str(percent)
    if 0 < abs(percent) < 0.01:
        return '~0%'
    digits = max(0, 1 - math.floor(math.log10(abs(percent)))) if percent else 0
    text = f'{percent:.{digits}f}'
    return f'{text.rstrip("0").rstrip(".") if "." in text else text}%' if abs(percent) < 1e6 else f'{percent:.0e}%'


def _table(rows: list[list[str]]) -> list[str]:
    """Lines with columns of equal width, names and shapes to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append('  '.join(left + right).rstrip())
    return lines


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_value(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
