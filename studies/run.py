#!/usr/bin/env python3
"""Runs tables of the studies: `python studies/run.py small --jobs 2 --dataset-root DIR`; `--list` shows them all.

Finished runs are skipped, broken ones go on from their last state, and a run that outlived its runner is found again.
"""
import argparse
import signal
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from studies import ROOT, jobs, records
from studies.processes import Workplace
from studies.rows import RECIPES
from studies.runner import Runner
from studies.tables import TABLES


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='studies/run.py', description=__doc__.splitlines()[0])
    parser.add_argument('tables', nargs='*', metavar='TABLE', help='tables (table1 is all of table1_...) or recipes')
    parser.add_argument('--list', action='store_true', help='show tables, their rows and what has been run')
    parser.add_argument('--seeds', help='a count (3), a range (3-5) or a list (0,4; of one: 4,); default: as many as '
                                        'each row plans')
    parser.add_argument('--epochs-scale', type=float, default=1.0, help='shrinks epochs and milestones (1)')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side; each gets its share of the cores (1)')
    parser.add_argument('--dataset-root', type=Path, help='folder with local copies: hfds/owner/NAME is DIR/NAME')
    parser.add_argument('--mixed-precision', choices=('no', 'bf16', 'fp16'), help="in place of the recipes'")
    parser.add_argument('--output', type=Path, default=ROOT / 'output' / 'studies', help='run folders, logs, locks')
    parser.add_argument('--records', type=Path, default=records.RUNS, help='where records go (results/runs)')
    args = parser.parse_args(argv)
    if not args.list and not args.tables:
        parser.error('name a table; --list shows them.')
    if args.jobs < 1 or not 0 < args.epochs_scale <= 1:
        parser.error('--jobs is at least 1, --epochs-scale above 0 and at most 1.')
    return args


def show(place: Workplace) -> None:
    """All tables with their rows."""
    for table in TABLES.values():
        print(f'{table.name}: {table.title}')
        for row in table.rows:
            recipe = RECIPES[row.recipe]
            done = sum(place.is_recorded(jobs.Job(recipe, seed)) for seed in range(100))
            print(f'    {row.recipe:42} {row.label:24} {done}/{recipe.seeds} seeds')


def main(argv=None) -> int:
    args = parse(argv)
    place = Workplace(args.output, args.records, args.dataset_root, args.jobs)
    if args.list:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--list | head` has seen enough
        show(place)
        return 0
    try:
        seeds = jobs.parse_seeds(args.seeds) if args.seeds else None
        chosen = jobs.make_jobs(args.tables, seeds, args.epochs_scale, args.mixed_precision)
        for job in chosen:
            jobs.local_dataset(job.options['dataset'], args.dataset_root)
    except (ValueError, FileNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return Runner(chosen, place).run()


if __name__ == '__main__':
    sys.exit(main())
