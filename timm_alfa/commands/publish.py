"""publish: publish a run on the Hugging Face Hub."""

import argparse
import functools
import json
import sys
from typing import Optional, Sequence

from timm_alfa.errors import AlfaError
from timm_alfa.training.exit import path_errors
from timm_alfa.utils.files import expand_home
from timm_alfa.utils.program import program, version
from timm_alfa.utils.streams import protect_streams
from timm_alfa.utils.text import short_number


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog=program('publish'),
        description='Publish a run on the Hugging Face Hub: weights, config and a model card, in one commit.',
        epilog='The last line of the output is a JSON record, with the row for timm_alfa/zoo/manifest.json.',
    )
    add = flags.add_argument
    add('--version', action='version', version=version())
    add('run', type=expand_home, metavar='RUN', help='folder of a run, OUTPUT/EXPERIMENT')
    add('--repo-id', required=True, metavar='ORG/NAME', help='best named architecture.tag: me/resnet50.alfa_in1k')
    add('--revision', default='main', metavar='BRANCH', help='branch, created if it does not exist (default: main)')
    add('--private', action='store_true', help='create a private repo')
    add('--exist-ok', action='store_true', help='add a commit to a repo that exists')
    add(
        '--standard',
        type=expand_home,
        metavar='RUN',
        help='run folder of standard training, to compare with on the card',
    )
    add(
        '--validated',
        type=expand_home,
        metavar='FILE',
        help="the record of RUN from `validate --robust` (and one of --standard's), for the accuracy under attack",
    )
    add(
        '--license',
        metavar='ID',
        help='identifier of the Hub (default: that of the dataset and the starting weights; required if it is not '
        'known)',
    )
    add('--dataset-id', metavar='ORG/NAME', help="the dataset on the Hub, if the run's --dataset does not say it")
    add('--data-dir', type=expand_home, metavar='DIR', help='where the data is, if not where the run had it')
    add(
        '--samples',
        type=int,
        default=1000,
        metavar='N',
        help='images of the evaluated split to reproduce the accuracy on, if the data is on this machine (0: none)',
    )
    add('--dry-run', action='store_true', help='check everything and send nothing')
    add(
        '--output',
        type=expand_home,
        metavar='DIR',
        help='with --dry-run: write what would be sent to this folder, new or empty',
    )
    return flags


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Publish; what a user can fix is one line on stderr and exit status 1."""
    protect_streams()
    flags = parser()
    args = flags.parse_args(argv)
    if args.output is not None and not args.dry_run:
        flags.error('--output DIR is where --dry-run writes: add --dry-run')

    # torch and timm are first imported here, so that wrong options are reported at once
    from timm_alfa.publishing.publish import Publication, publish
    from timm_alfa.publishing.verify import sample_accuracy

    publication = Publication(
        args.run, args.repo_id, args.revision, args.standard, args.license, args.dataset_id, args.validated
    )
    evaluate = functools.partial(sample_accuracy, samples=args.samples, data_dir=args.data_dir)
    try:
        with path_errors():
            record = publish(
                publication,
                private=args.private,
                exist_ok=args.exist_ok,
                dry_run=args.dry_run,
                output=args.output,
                evaluate=evaluate,
            )
    except AlfaError as error:
        print(f'{flags.prog}: {error}', file=sys.stderr)
        return 1
    print(f'{record["status"]}: {short_number(record["bytes"])}B in {", ".join(record["files"])}')
    if record['reproduced_on'] is None:
        print('the recorded accuracy was not reproduced: the data is not on this machine, or --samples is 0')
    if args.dry_run and args.output is None:
        print('nothing was sent or written: add --output DIR to look at the files')
    print(json.dumps(record))
    return 0
