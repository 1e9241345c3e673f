#!/usr/bin/env python3
"""Adds records from another machine: `python studies/merge.py FOLDER`; `--dry-run` only checks them.

A record is refused if its recipe, its data or its code is not what the records here have, or if it contradicts itself.
Records that are already there are never replaced.
"""

import argparse
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from studies import ROOT, records
from studies.compare import condition
from studies.jobs import Job, published_command
from studies.recipes import RECIPES
from timm_alfa.utils.bits import PackedBits

PARTS = ('val', 'test', 'unused')
# Keys of a record that do not come from result.json.
ADDED = (
    'name',
    'recipe',
    'seed',
    'epochs_scale',
    'options',
    'dataset',
    'threads',
    'jobs',
    'changed_after',
    'reproduce',
    'history',
)
# What is shown on pages, or compared before anything else is known of it.
KINDS = dict(
    name=str,
    recipe=str,
    seed=int,
    epochs_scale=float,
    mixed_precision=str,
    device=str,
    commit=str,
    options=dict,
    versions=dict,
    history=dict,
    changed_after=list,
    threads=int,
    jobs=int,
    seconds=float,
    seconds_per_epoch=float,
)
PRECISIONS = ('no', 'bf16', 'fp16')
PLAIN = re.compile(r'[\w .,:+()/-]{1,200}')


def errors(record: Any, known: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with a record; empty if it can be added.

    Args:
        record: What a file holds.
        known: The records that are there.
    """
    found = list(_form_errors(record))
    if not found:
        job = Job(RECIPES[record['recipe']], record['seed'], record['epochs_scale'], record['mixed_precision'])
        for check in (_recipe_errors, _score_errors):
            found += check(record, job)
        found += [*_code_errors(record), *_data_errors(record, known)]
    return found


def _form_errors(record: Any) -> Iterator[str]:
    """Errors of the keys, and of values that everything else uses."""
    if not isinstance(record, dict):
        yield 'it is not a mapping'
        return
    for key in sorted(record.keys() - {*records.KEPT, *ADDED}):
        yield f'{key!r} is not a key of a record'
    for key in sorted({*KINDS, *ADDED, 'status'} - record.keys()):
        yield f'{key} is missing'
    for key, kind in KINDS.items():
        if key in record and type(record[key]) is not kind:
            yield f'{key} is {record[key]!r}: expected {kind.__name__}'
    yield from _value_errors(record)


def _value_errors(record: Mapping[str, Any]) -> Iterator[str]:
    """Errors of values whose types are right, as far as the keys are there."""
    shown = [(key, record[key]) for key, kind in KINDS.items() if kind is str and type(record.get(key)) is str]
    if type(record.get('versions')) is dict:
        shown += [(f'versions.{name}', record['versions'].get(name)) for name in ('torch', 'timm')]
    for key, value in shown:
        if not (isinstance(value, str) and PLAIN.fullmatch(value)):
            yield f'{key} is {value!r}: expected plain text'
    if record.get('recipe') not in [*RECIPES]:
        yield f'there is no recipe {record.get("recipe")!r}'
    if record.get('mixed_precision') not in PRECISIONS:
        yield f'mixed_precision is {record.get("mixed_precision")!r}: expected one of {", ".join(PRECISIONS)}'
    scale = record.get('epochs_scale')
    if type(scale) is float and not 0 < scale <= 1:
        yield f'epochs_scale is {scale}: expected a factor above 0, at most 1'


def _recipe_errors(record: Mapping[str, Any], job: Job) -> Iterator[str]:
    """Whether the run is what its recipe says."""
    if record['name'] != job.name:
        yield f"it is called '{record['name']}', but a run of this recipe and seed is '{job.name}'"
    if not records.matches(record, job):
        yield 'its status, options or scores are not those of a complete run of the recipe as it is now'
    command = published_command(job, records.flags_of(record))
    if record['reproduce'] != command:
        yield f"its command is not '{command}'"
    if record['dataset'] != job.options['dataset']:
        yield f"its dataset is '{record['dataset']}', the recipe's is '{job.options['dataset']}'"
    for key in ('epochs', 'batch_size', 'model', 'task'):
        if record.get(key) != job.options[key]:
            yield f'{key} is {record.get(key)!r}, the recipe has {job.options[key]!r}'
    if record.get('epochs_done') != job.options['epochs']:
        yield f'{record.get("epochs_done")} of {job.options["epochs"]} epochs were trained'
    if record['changed_after']:
        yield 'it was resumed with other options'


def _score_errors(record: Mapping[str, Any], job: Job) -> Iterator[str]:
    """Whether scores are possible, and agree with the bits per image."""
    for part in PARTS:
        score, packed = record.get(f'{part}_top1'), record.get(f'{part}_correct')
        if score is not None and not _is_percentage(score):
            yield f'{part}_top1 is {score!r}: expected a percentage'
        elif packed is not None:
            try:
                share = 100 * PackedBits(**packed).unpack().mean()
            except (TypeError, ValueError) as error:
                yield f'{part}_correct: {error}'
                continue
            if score is None or not math.isclose(share, score, rel_tol=1e-9):
                yield f'{part}_top1 is {score}, its bits give {share:.4f}'
            if packed['images'] != record.get(f'{part}_images'):
                yield f'{part}_correct has {packed["images"]} images, {part}_images is {record.get(f"{part}_images")}'
    if record.get('test_correct') is None and job.options.get('val_fraction'):
        yield 'test_correct is missing: the run was made with an older version'


def _is_percentage(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 100


def _code_errors(record: Mapping[str, Any]) -> Iterator[str]:
    """Whether the code was a commit of this repository, without changes."""
    for commit in record['commit'].split(', '):
        if not re.fullmatch(r'[0-9a-f]{40}', commit):
            yield f"'{commit}' is not a commit without changes"
        elif not is_in_history(commit):
            yield f"commit {commit[:10]} is not in this repository's history: fetch it, or run from a commit that is"


def is_in_history(commit: str) -> bool:
    """Whether a commit is an ancestor of the present one."""
    command = ['git', '-C', str(ROOT), 'merge-base', '--is-ancestor', commit, 'HEAD']
    # the commit is 40 hexadecimal digits, and git is the user's own
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # nosec B603


def _data_errors(record: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Whether the labels and their order are those of the runs that it would be compared with."""
    mine = record.get('labels_sha256')
    if not isinstance(mine, str) or not re.fullmatch('[0-9a-f]{64}', mine):
        yield 'labels_sha256 is missing: the run was made with an older version'
        return
    compared = [each for each in known if (each['dataset'], condition(each)) == (record['dataset'], condition(record))]
    hashes = {each.get('labels_sha256') for each in compared} - {None}
    if hashes and mine not in hashes:
        yield 'its images are others, or in another order, than those of the runs here: use the same copy of the data'


def merge(folder: Path, runs: Path, dry_run: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Adds the records of a folder.

    Yields:
        The name of each file, and why it is refused; an empty list if it was added or is already there.

    Raises:
        FileNotFoundError: There are no records.
    """
    paths = sorted(folder.glob('*.json'))
    if not paths:
        raise FileNotFoundError(f"'{folder}' holds no records (*.json).")
    known = records.load_all(runs)
    for path in paths:
        record = records.load(path)
        found = ['it cannot be read as JSON'] if record is None else errors(record, known)
        if not found and path.stem != record['name']:
            found = [f"it holds '{record['name']}'"]
        if not found:
            there = records.load(runs / path.name)
            if there is None:
                known.append(record)
                if not dry_run:
                    records.save(record, runs)
            elif there != record:
                found = ['there is another record of this run, which is kept']
        yield path.name, found


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog='studies/merge.py', description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, metavar='FOLDER', help='folder of records, as --records of run.py made it')
    parser.add_argument('--records', type=Path, default=records.RUNS, help='where they go (default: results/runs)')
    parser.add_argument('--dry-run', action='store_true', help='check the records, and add none')
    args = parser.parse_args(argv)
    refused = 0
    try:
        for name, found in merge(args.folder, args.records, args.dry_run):
            refused += bool(found)
            print(f'{name}: ' + ('ok' if not found else f'refused: {"; ".join(found)}'))
    except FileNotFoundError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 1 if refused else 0


if __name__ == '__main__':
    sys.exit(main())
