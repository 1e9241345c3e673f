#!/usr/bin/env python3
"""Writes what the runs show: `python studies/report.py` -> results/README.md, results/figures/, headers of recipes/."""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from studies import ROOT, records
from studies.writing import write


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog='studies/report.py', description=__doc__)
    parser.add_argument('--records', type=Path, default=records.RUNS, help='folder of records (results/runs)')
    parser.add_argument('--results', type=Path, default=ROOT / 'results', help='where README.md and figures/ go')
    parser.add_argument('--recipes', type=Path, default=ROOT / 'recipes', help='folder of recipes')
    args = parser.parse_args(argv)
    for line in write(args.records, args.results, args.recipes):
        print(line)
    return 0


if __name__ == '__main__':
    sys.exit(main())
