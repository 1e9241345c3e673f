"""list: the names of weights that can be loaded."""

import argparse
import json
from typing import Optional, Sequence

from timm_alfa.utils.program import program, version
from timm_alfa.utils.text import short_number, table


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog=program('list'),
        description='List the names that timm.create_model(NAME, pretrained=True) takes after `import timm_alfa`, and '
        'those that are planned and have no weights yet.',
    )
    flags.add_argument('filter', nargs='?', default='', metavar='PATTERN', help="names alone that match: 'resnet20s*'")
    flags.add_argument('--pretrained', action='store_true', help='leave out names without weights')
    flags.add_argument('--json', action='store_true', help='print one JSON object per name')
    flags.add_argument('--version', action='version', version=version())
    return flags


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Print a table of the names, or a line of JSON for each."""
    args = parser().parse_args(argv)

    from timm_alfa.zoo import list_pretrained  # imports timm: after the options

    found = list_pretrained(args.filter, args.pretrained)
    if args.json:
        for name, row in found.items():
            print(json.dumps({'name': name, **row._asdict()}))
        return
    if not found:
        print(f"no name matches '{args.filter}'.")
        return
    print(table([('name', 'dataset', 'top-1', 'size', 'weights'), *(_cells(name, row) for name, row in found.items())]))


def _cells(name: str, row) -> tuple[str, ...]:
    if row.weights is None:
        return name, row.dataset or '', '', '', 'none yet'
    where = 'in the package' if row.weights == 'package' else 'on the Hub'
    return name, row.dataset or '', f'{row.top1:.2f} ({row.split})', f'{short_number(row.size)}B', where
