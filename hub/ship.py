"""Copy a run's small weights into the package, timm_alfa/zoo/files/NAME, and write their row into manifest.json.

python hub/ship.py RUN --name resnet20s.alfa_c10
"""

import argparse
import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout needs no installation

from timm_alfa.errors import AlfaError
from timm_alfa.publishing.ship import ship
from timm_alfa.publishing.verify import sample_accuracy
from timm_alfa.training.exit import path_errors
from timm_alfa.utils.files import expand_home
from timm_alfa.utils.streams import protect_streams


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(prog='ship.py', description=__doc__.splitlines()[0])
    flags.add_argument('run', type=expand_home, metavar='RUN', help='run folder of train.py, OUTPUT/EXPERIMENT')
    flags.add_argument('--name', required=True, help='architecture.tag, such as resnet20s.alfa_c10')
    flags.add_argument(
        '--data-dir', type=expand_home, metavar='DIR', help='where the data is, if not where the run had it'
    )
    flags.add_argument(
        '--samples',
        type=int,
        default=10000,
        metavar='N',
        help='images of the evaluated split to reproduce the accuracy on (0: none)',
    )
    return flags


def main(argv: Optional[list[str]] = None) -> int:
    """Ship; what a user can fix is one line on stderr and exit status 1."""
    protect_streams()
    args = parser().parse_args(argv)
    evaluate = functools.partial(sample_accuracy, samples=args.samples, data_dir=args.data_dir)
    try:
        with path_errors():
            row, count = ship(args.run, args.name, evaluate=evaluate)
    except AlfaError as error:
        print(f'ship.py: {error}', file=sys.stderr)
        return 1
    print(json.dumps({'status': 'shipped', 'reproduced_on': count, 'manifest_row': dataclasses.asdict(row)}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
