"""results/figures/: which figures there are, what they are called, and what they show."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

from studies import plots
from studies.compare import Condition, Runs, conditions_of
from studies.generated import Outcome, write_binaries
from studies.records import HISTORY
from studies.tables import TABLES
from timm_alfa.utils.plotting import png

CAPTIONS = dict(
    cost='Seconds per epoch relative to standard training.',
    training='Cross-entropy on clean and perturbed features, the gap between them, and the norm of the perturbation, '
    'per epoch: means over the seeds that all of these methods share.',
    widths='Effect of the step size, one line per width of the network. Left: points above standard training with its '
    'loss doubled, which is ALFA with a step size of zero (95% intervals; hollow markers and dotted lines where '
    'there are fewer than three pairs). Right: the loss that the perturbation adds in the last epoch, averaged '
    'over seeds.',
)


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        name: Its file's, without the suffix.
        caption: What it shows.
        drawing: The matplotlib figure.
    """

    name: str
    caption: str
    drawing: Any


def figures(groups: Mapping[Condition, Runs]) -> list[Figure]:
    """All figures that have enough runs, by name."""
    found = [*_bar_charts(groups), *_per_block(groups), *_overviews(groups)]
    return sorted((figure for figure in found if figure.drawing is not None), key=lambda figure: figure.name)


def write_figures(found: list[Figure], folder: Path) -> Outcome:
    """Writes figures, and removes those that no longer have runs."""
    return write_binaries(folder, {f'{figure.name}.png': png(figure.drawing) for figure in found}, '*.png')


def _bar_charts(groups: Mapping[Condition, Runs]) -> Iterator[Figure]:
    for table in TABLES.values():
        if not table.bars:
            continue
        caption = f'{table.title}: points above the baseline, paired, with 95% intervals.'
        for where, runs in conditions_of(table, groups):
            yield Figure(_name(table.name, where), caption, plots.bars(table, where, runs))


def _per_block(groups: Mapping[Condition, Runs]) -> Iterator[Figure]:
    """What a method reports for each block."""
    for where, runs in groups.items():
        for recipe, by_seed in runs.items():
            columns = sorted({column for record in by_seed.values() for column in record['history']} - {*HISTORY})
            for column in columns:
                caption = (
                    f'{recipe}: {column} of each block over the epochs, one line per seed. The last block is black.'
                )
                drawing = plots.per_block(column, recipe, where, by_seed)
                yield Figure(_name(f'{column}_{recipe}', where), caption, drawing)


def _overviews(groups: Mapping[Condition, Runs]) -> Iterator[Figure]:
    for where, runs in groups.items():
        for name, draw in (('cost', plots.cost), ('training', plots.training), ('widths', plots.widths)):
            yield Figure(_name(name, where), CAPTIONS[name], draw(where, runs))


def _name(name: str, where: Condition) -> str:
    scale = '' if where.scale == 1 else f'_x{where.scale:g}'
    precision = 'fp32' if where.precision == 'no' else where.precision
    return f'{name}{scale}_{precision}_{where.device.lower()}'
