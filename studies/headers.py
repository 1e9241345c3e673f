"""What a recipe's file says about our own runs."""

from collections.abc import Iterable, Mapping
from typing import Any

from studies import stats
from studies.compare import by_condition, seconds_per_epoch, values
from studies.formats import commits, devices, score, seed_ranges

SCORES = {'test_top1': 'test top-1', 'val_top1': 'validation', 'robust_top1': 'under attack'}


def headers(found: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Lines for each recipe that was run, one per condition: score, seeds, time, device, versions and commit."""
    lines: dict[str, list[str]] = {}
    for where, runs in by_condition(found).items():
        for recipe, by_seed in runs.items():
            lines.setdefault(recipe, []).append(_line(where.text, by_seed))
    return lines


def _line(where: str, runs: Mapping[int, Mapping[str, Any]]) -> str:
    scores = []
    for metric, label in SCORES.items():
        found = stats.sample(list(values(runs, metric).values()))
        if found is not None:
            scores.append(f'{label} {score(found)}')

    one = next(iter(runs.values()))
    seeds = f'{"seed" if len(runs) == 1 else "seeds"} {seed_ranges(runs)}'
    time = f'{one["epochs"]} epochs of {seconds_per_epoch(runs):.3g} s on {devices(runs.values())}'
    versions = ', '.join(f'{name} {one["versions"][name]}' for name in ('torch', 'timm'))
    return f'Our runs ({where}): {"; ".join(scores)}; {seeds}, {time}; {versions}, {commits(runs.values())}.'
