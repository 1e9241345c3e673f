"""Writes the page of the weights from the manifest: `python docs/figures/weights_page.py`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from timm_alfa.utils.markdown import markdown_table
from timm_alfa.utils.text import short_number
from timm_alfa.zoo import list_pretrained
from timm_alfa.zoo.listing import Pretrained

PAGE = ROOT / 'docs' / 'weights.md'
TEXT = """# Weights

{count} names have weights that can be loaded; they ship with the package or come from the Hub:

```python
import timm, timm_alfa

model = timm.create_model('{first}', pretrained=True)
```

{table}

Top-1 is the accuracy of the best checkpoint, chosen on validation images, on the test split, which was read once.
Robust top-1 is that under the attack of `validate.py --robust` (20 steps of PGD with random start, at most 8/255 from
the image) on 1,000 test images. One seed does not compare methods.

`timm-alfa list --json` prints the same as JSON, one line per name, and the names that have no weights yet:

{planned}.

This page is written by `docs/figures/weights_page.py` from `timm_alfa/zoo/manifest.json`.
"""


def row(name: str, known: Pretrained) -> list[str]:
    """What the table says of a name."""
    method = known.tag.rpartition('_')[0]
    card = ROOT / 'timm_alfa' / 'tasks' / 'cards' / f'{method}.md'
    return [
        f'`{name}`',
        known.dataset or '',
        f'{known.top1:.2f}',
        '' if known.robust_top1 is None else f'{known.robust_top1:.1f}',
        f'{short_number(known.size or 0)}B',
        '' if known.recipe is None else f'[{known.recipe}](../recipes/{known.recipe}.yaml)',
        ' / '.join('' if value is None else str(value) for value in (known.seed, known.epochs)),
        (known.commit or '')[:10],
        f'[{method}](../timm_alfa/tasks/cards/{method}.md)' if card.exists() else '',
    ]


def page() -> str:
    """The whole page."""
    known = list_pretrained(pretrained=True)
    columns = ['name', 'data', 'test top-1', 'robust top-1', 'size', 'recipe', 'seed / epochs', 'commit', 'method']
    planned = [f'`{name}`' for name, each in list_pretrained().items() if each.weights is None]
    return TEXT.format(
        count=len(known),
        first=next(iter(known)),
        table=markdown_table(columns, [row(name, each) for name, each in known.items()]),
        planned=', '.join(planned),
    )


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
