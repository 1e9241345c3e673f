#!/usr/bin/env python3
"""Runs tables of the studies: `python studies/run.py small --jobs 2 --dataset-root DIR`; `--list` shows all tables.

Finished runs are skipped, interrupted ones are resumed, and runs that outlived their runner are found again.
"""

import argparse
import signal
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from studies import ROOT, jobs, records
from studies.files import user_path
from studies.recipes import RECIPES
from studies.runner import Runner
from studies.tables import TABLES
from studies.together import train_in_groups
from studies.worker import Workspace


def parse_args(argv=None) -> argparse.Namespace:
    """Parses and checks the command line."""
    parser = argparse.ArgumentParser(prog='studies/run.py', description=__doc__.splitlines()[0])
    parser.add_argument(
        'tables', nargs='*', metavar='TABLE', help='tables (table1 stands for all of table1_...) or recipes'
    )
    parser.add_argument('--list', action='store_true', help='show all tables, their rows, and what has been run')
    parser.add_argument(
        '--seeds', help='a count (3), a range (3-5) or a list (0,4; one seed is 4,); default: as planned per recipe'
    )
    parser.add_argument('--epochs-scale', type=float, default=1.0, help='factor of epochs and milestones (default: 1)')
    parser.add_argument(
        '--jobs', type=int, default=1, help='runs at a time; each gets its share of the cores (default: 1)'
    )
    parser.add_argument(
        '--together', type=int, default=1, help='runs in one process, for a GPU that one run does not fill (default: 1)'
    )
    parser.add_argument(
        '--dataset-root', type=user_path, metavar='DIR', help='folder with local copies: hfds/OWNER/NAME is DIR/NAME'
    )
    parser.add_argument('--mixed-precision', choices=('no', 'bf16', 'fp16'), help="overrides the recipes' precision")
    parser.add_argument(
        '--output',
        type=user_path,
        default=ROOT / 'output' / 'studies',
        help='folder of run folders, logs and locks (default: output/studies)',
    )
    parser.add_argument(
        '--records', type=user_path, default=records.RUNS, help='folder of records (default: results/runs)'
    )
    args = parser.parse_args(argv)

    if not args.list and not args.tables:
        parser.error('name at least one table; --list shows all.')
    if args.together < 1 or (args.together > 1 and args.jobs > 1):
        parser.error('--together must be at least 1, and above 1 it replaces --jobs.')
    if args.jobs < 1 or not 0 < args.epochs_scale <= 1:
        parser.error('--jobs must be at least 1, --epochs-scale above 0 and at most 1.')
    return args


def show(workspace: Workspace) -> None:
    """Prints all tables with their rows."""
    for table in TABLES.values():
        print(f'{table.name}: {table.title}')
        for row in table.rows:
            recipe = RECIPES[row.recipe]
            done = sum(workspace.is_recorded(jobs.Job(recipe, seed)) for seed in range(100))
            print(f'    {row.recipe:42} {row.label:24} {done}/{recipe.seeds} seeds')


def main(argv=None) -> int:
    args = parse_args(argv)
    workspace = Workspace(args.output, args.records, args.dataset_root, args.jobs)
    if args.list:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `--list | head` is not an error
        show(workspace)
        return 0
    try:
        seeds = jobs.parse_seeds(args.seeds) if args.seeds else None
        chosen = jobs.make_jobs(args.tables, seeds, args.epochs_scale, args.mixed_precision)
        for job in chosen:
            jobs.local_dataset(job.options['dataset'], args.dataset_root)
    except (ValueError, FileNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    try:
        if args.together > 1 and not train_in_groups(chosen, workspace, args.together):
            return 130
        return Runner(chosen, workspace).run()
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: '{error.filename}' cannot be used: {error.strerror}.", file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
