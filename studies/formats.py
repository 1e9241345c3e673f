"""How numbers, seeds, devices and commits are written in reports and recipes."""

from typing import Any, Iterable, Mapping, Optional

from studies import stats


def score(found: stats.Sample) -> str:
    """Mean and standard deviation, in percent."""
    return f'{found.mean:.2f}' + ('' if found.std is None else f' ± {found.std:.2f}')


def difference(found: Optional[stats.Difference], digits: int = 2) -> str:
    """A paired difference with its interval, such as '+0.62 [+0.01, +1.22]'."""
    if found is None:
        return ''
    mean = f'{found.mean:+.{digits}f}'
    if found.low is None:
        return mean
    return f'{mean} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]'


def seed_ranges(seeds: Iterable[int]) -> str:
    """Seeds in short, such as '0-2, 5'."""
    ranges: list[list[int]] = []
    for seed in sorted(seeds):
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    return ', '.join(str(first) if first == last else f'{first}-{last}' for first, last in ranges)


def plural(count: int, noun: str) -> str:
    """A count with its noun, such as '2 runs'."""
    return f'{count} {noun}{"" if count == 1 else "s"}'


def devices(found: Iterable[Mapping[str, Any]]) -> str:
    """The devices of some runs, and how the runs shared them."""
    found = list(found)
    most = max(record['jobs'] for record in found)
    share = f' (up to {most} runs at a time)' if most > 1 else ''
    return ' or '.join(sorted({_device(record) for record in found})) + share


def _device(record: Mapping[str, Any]) -> str:
    return plural(record['threads'], 'CPU thread') if record['device'] == 'cpu' else record['device']


def commits(found: Iterable[Mapping[str, Any]]) -> str:
    """The commits of some runs, ten digits each; '+' marks uncommitted changes."""
    known = set()
    for record in found:
        for commit in (record.get('commit') or 'unknown').split(', '):
            known.add(f'{commit[:10]}{"+" if commit.endswith("+") else ""}')
    shown = sorted(known)
    if len(shown) == 1:
        return f'commit {shown[0]}'
    if len(shown) > 2:
        shown = [shown[0], f'and {len(shown) - 1} others']
    return f'commits {" ".join(shown)}'
