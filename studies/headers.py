"""What a recipe's header says of our own runs."""
from collections.abc import Iterable, Mapping
from typing import Any

from studies import stats
from studies.evidence import by_condition, seconds_per_epoch, values


def headers(found: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Lines for each recipe that was run: score, seeds, time, device, versions, commit; one a condition."""
    lines: dict[str, list[str]] = {}
    for where, runs in by_condition(found).items():
        for recipe, by_seed in runs.items():
            lines.setdefault(recipe, []).append(_line(where.text, by_seed))
    return lines


def _line(where: str, runs: Mapping[int, Mapping[str, Any]]) -> str:
    one = next(iter(runs.values()))
    parts = [f'Here ({where}): ' + '; '.join(filter(None, (
        _score(runs, 'test_top1', 'test top-1'), _score(runs, 'val_top1', 'validation'),
        _score(runs, 'robust_top1', 'under attack'))))]
    count = 'seed' if len(runs) == 1 else 'seeds'
    parts.append(f"{count} {spans(runs)}, {one['epochs']} epochs of {seconds_per_epoch(runs):.3g} s on "
                 + places(runs.values()))
    parts.append(', '.join(f'{name} {one["versions"][name]}' for name in ('torch', 'timm')) + ', '
                 + commits(runs.values()))
    return '; '.join(parts) + '.'


def _score(runs: Mapping[int, Mapping[str, Any]], metric: str, label: str) -> str:
    found = stats.sample(list(values(runs, metric).values()))
    return '' if found is None else f'{label} {score(found)}'


def score(found: stats.Sample) -> str:
    """Mean and deviation, in percent."""
    return f'{found.mean:.2f}' + ('' if found.std is None else f' ± {found.std:.2f}')


def spans(seeds: Iterable[int]) -> str:
    """Seeds in short: '0-2, 5'."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ', '.join(str(a) if a == b else f'{a}-{b}' for a, b in runs)


def places(found: Iterable[Mapping[str, Any]]) -> str:
    """The devices of some runs, and their shares of them."""
    found = list(found)
    most = max(record['jobs'] for record in found)
    share = f' (up to {most} runs side by side)' if most > 1 else ''
    return ' or '.join(sorted({_place(record) for record in found})) + share


def _place(record: Mapping[str, Any]) -> str:
    threads = f"{record['threads']} CPU thread{'s' if record['threads'] > 1 else ''}"
    return threads if record['device'] == 'cpu' else record['device']


def commits(found: Iterable[Mapping[str, Any]]) -> str:
    """The commits of some runs, ten digits each; '+': with changes that were not committed."""
    known = sorted({f'{one[:10]}{"+" if one.endswith("+") else ""}'
                    for record in found for one in (record.get('commit') or 'unknown').split(', ')})
    shown = known if len(known) <= 2 else [*known[:1], f'and {len(known) - 1} others']
    return ('commit ' if len(known) == 1 else 'commits ') + ' '.join(shown)
