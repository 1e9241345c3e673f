"""How precise a table's scores are: tables that need one bit per image, and appear only where records hold them."""

from typing import Iterator, Mapping, NamedTuple, Optional

import numpy as np

from studies import power, stats, unseen
from studies.cells import table_without_empty_columns
from studies.compare import Runs, terms
from studies.formats import difference
from studies.tables import Table

NOTE = (
    'How precise this is, from runs that record one bit per image. "SD" is the standard deviation over seeds on the '
    'test split, in points; "from images" is the part that other test images would change, "of networks" what remains '
    'on infinitely many images (Jordan 2024, equation 3).'
)
PAIRS_NOTE = (
    'Differences are paired by seed, on the number of images given: the test split, or where all pairs were scored '
    'on them, the test split and the unused training images, each image with the same weight; intervals are '
    "Student's t, 95%, over seeds. P(better) is the share of pairs that are better, with the 95% percentiles of the "
    'paired bootstrap (Bouthillier et al. 2021), from ten pairs on. The last columns are the pairs that a paired t '
    'test needs for a power of 0.8 if the true difference is that many points and the standard deviation of the '
    'differences is the observed one.'
)
EFFECTS = (0.2, 0.3, 0.5)
SPREAD_COLUMNS = ('SD', 'from images', 'of networks')
RUN_COLUMNS = ('row', 'runs', *SPREAD_COLUMNS)
PAIR_COLUMNS = (
    'difference',
    'images',
    'points [95% CI]',
    'pairs',
    'P(better) [95% CI]',
    *SPREAD_COLUMNS,
    *(f'pairs for {points}' for points in EFFECTS),
)


class Effect(NamedTuple):
    """A weighted sum of rows that is examined: a difference of two rows, or a contrast.

    Attributes:
        label: As printed.
        weights: Factor of each recipe.
    """

    label: str
    weights: Mapping[str, float]


def precision(table: Table, runs: Runs) -> Iterator[str]:
    """Markdown about a table's precision; nothing if no row has two runs with one bit per image."""
    if not table.compared or table.metric not in ('test_top1', 'unseen_top1'):
        return
    known = {row.recipe: with_bits(runs, row.recipe) for row in table.rows}
    rows = [cells for row in table.rows if (cells := run_cells(row.label, known[row.recipe]))]
    if not rows:
        return
    yield NOTE
    yield table_without_empty_columns(RUN_COLUMNS, rows)

    pairs = [cells for effect in effects(table) if (cells := pair_cells(effect, known))]
    if pairs:
        yield PAIRS_NOTE
        yield table_without_empty_columns(PAIR_COLUMNS, pairs)


def with_bits(runs: Runs, recipe: str) -> dict[int, Mapping]:
    """A recipe's runs that record which test images were classified correctly."""
    return {seed: record for seed, record in runs.get(recipe, {}).items() if record.get('test_correct')}


def effects(table: Table) -> Iterator[Effect]:
    """Everything that a table compares."""
    for row in table.rows:
        for other in table.against(row):
            yield Effect(f'{row.label}, to {table.row(other).label}', {row.recipe: 1.0, other: -1.0})
    for one in table.contrasts:
        yield Effect(one.label.replace(' (97.5% CI)', ''), one.weights)


def run_cells(label: str, runs: Mapping[int, Mapping]) -> Optional[tuple[str, ...]]:
    """A row's line under `RUN_COLUMNS`."""
    scores = image_scores({label: 1.0}, {label: runs})
    return None if scores is None else (label, str(len(scores)), *spread_cells(power.spread(scores)))


def pair_cells(effect: Effect, known: Mapping[str, Mapping[int, Mapping]]) -> Optional[tuple[str, ...]]:
    """An effect's line under `PAIR_COLUMNS`.

    Args:
        effect: What is examined.
        known: Runs with one bit per image, by recipe and seed.
    """
    scores = image_scores(effect.weights, known)
    if scores is None:
        return None

    # on unseen images if all pairs were scored on them, else on the test split
    metric, images = 'unseen_top1', unseen_images(effect.weights, known)
    if len(stats.weighted_sums(terms(known, effect.weights, metric))) < len(scores) or images is None:
        metric, images = 'test_top1', scores.shape[1]
    found = stats.contrast(terms(known, effect.weights, metric))
    better = power.superiority(list(stats.weighted_sums(terms(known, effect.weights, metric)).values()))
    return (
        effect.label,
        f'{images:,}',
        difference(found),
        str(found.n),
        '' if better is None else f'{better.probability:.2f} [{better.low:.2f}, {better.high:.2f}]',
        *spread_cells(power.spread(scores)),
        *(pairs_cell(points, found) for points in EFFECTS),
    )


def image_scores(weights: Mapping[str, float], known: Mapping[str, Mapping[int, Mapping]]) -> Optional[np.ndarray]:
    """The weighted sum of rows on each test image, (seeds, images).

    Returns:
        None for fewer than two seeds that all rows have, or if their test splits differ in size.
    """
    seeds = sorted(set.intersection(*({*known[recipe]} for recipe in weights)))
    scores = []
    for seed in seeds:
        bits = [factor * unseen.correct(known[recipe][seed], 'test') for recipe, factor in weights.items()]
        if len({len(each) for each in bits}) > 1:
            return None
        scores.append(sum(bits))
    if len(scores) < 2 or len({len(each) for each in scores}) > 1:
        return None
    return np.stack(scores)


def unseen_images(weights: Mapping[str, float], known: Mapping[str, Mapping[int, Mapping]]) -> Optional[int]:
    """How many unseen images a run was scored on; None if runs differ in it, or none was scored on them."""
    counts = set()
    for recipe in weights:
        for record in known[recipe].values():
            bits = unseen.unseen_correct(record)
            if bits is not None:
                counts.add(len(bits))
    return counts.pop() if len(counts) == 1 else None


def spread_cells(found: Optional[power.Spread]) -> tuple[str, ...]:
    """The cells of `SPREAD_COLUMNS`."""
    if found is None:
        return '', '', ''
    return f'{found.observed:.2f}', f'{found.images:.2f}', f'{found.networks:.2f}'


def pairs_cell(points: float, found: stats.Difference) -> str:
    """How many pairs find a difference of so many points."""
    if found.n < stats.FEWEST_PAIRS or not found.std:
        return ''
    count = power.pairs_for(points, found)
    return f'over {stats.MOST_SEEDS}' if count is None else str(count)
