"""The one list of what is published: rows of manifest.json."""

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional, Union

from timm_alfa.errors import HubError
from timm_alfa.utils.files import write_json

MANIFEST = Path(__file__).with_name('manifest.json')
_CFG_KEYS = ('input_size', 'mean', 'std', 'interpolation', 'crop_pct', 'num_classes')
_FEW = 100  # class names that a row has room for; ImageNet's are in the repo's config.json


@dataclasses.dataclass(frozen=True)
class Row:
    """One published checkpoint.

    Args:
        name: `architecture.tag`, as `timm.create_model` takes it.
        sha256: Of model.safetensors, 64 hexadecimal digits.
        size: Of model.safetensors, bytes.
        top1: Percent, on `split`.
        split: The data set's split that `top1` was measured on.
        precision: What `top1` was measured in, 'bf16' or 'fp16'; None for float32.
        repo_id: Where it is on the Hub; None for weights that are in the package only.
        revision: The Hub's commit.
        commit: This project's commit that trained it.
        file: The folder with model.safetensors, relative to the manifest, of weights that ship in the package; where
            it is there it goes before repo_id.
        pretrained_cfg: Input size, normalization and classes (with names where they are few), as in config.json.
    """

    name: str
    sha256: str
    size: int
    top1: float
    split: str
    precision: Optional[str] = None
    repo_id: Optional[str] = None
    revision: Optional[str] = None
    commit: Optional[str] = None
    file: Optional[str] = None
    pretrained_cfg: dict[str, Any] = dataclasses.field(default_factory=dict)


def cfg_of(config: dict) -> dict[str, Any]:
    """What a row keeps of a published config.json."""
    both = {**config.get('pretrained_cfg', {}), 'num_classes': config['num_classes']}
    kept = {key: both[key] for key in _CFG_KEYS if key in both}
    labels = config.get('label_names')
    return {**kept, 'label_names': labels} if isinstance(labels, list) and len(labels) <= _FEW else kept


def _faults(values: Any) -> Iterable[str]:
    fields = {field.name: field for field in dataclasses.fields(Row)}
    if not isinstance(values, dict):
        yield f'{values!r} is no row: give a mapping'
        return
    needed = {name for name, field in fields.items() if name in ('name', 'sha256', 'size', 'top1', 'split')}
    if missing := sorted(needed - values.keys()):
        yield f'{values.get("name", "a row")} lacks {", ".join(missing)}'
    if unknown := sorted(values.keys() - fields.keys()):
        yield f'{values.get("name", "a row")} has unknown {", ".join(unknown)}'
    if not re.fullmatch('[0-9a-f]{64}', str(values.get('sha256'))):
        yield f'{values.get("name", "a row")}: sha256 must be 64 hexadecimal digits'
    if unknown := sorted(set(values.get('pretrained_cfg') or {}) - {*_CFG_KEYS, 'label_names'}):
        yield f'{values.get("name", "a row")}: pretrained_cfg has unknown {", ".join(unknown)}'
    if not values.get('repo_id') and not values.get('file'):
        yield f'{values.get("name", "a row")} has neither repo_id nor file'


def load_manifest(path: Union[str, Path] = MANIFEST) -> dict[str, Row]:
    """Rows by name.

    Raises:
        HubError: The file cannot be read, or rows are wrong: all of them in one line.
    """
    try:
        values = json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise HubError(f'{path} is no manifest ({error}): give a JSON list of rows.') from error
    found = [fault for row in values for fault in _faults(row)]
    names = [row.get('name') for row in values if isinstance(row, dict)]
    found += [f'{name} is there twice' for name in sorted({n for n in names if names.count(n) > 1}, key=str)]
    if found:
        raise HubError(f'{path}: {"; ".join(found)}.')
    return {row['name']: Row(**row) for row in values}


def save_manifest(rows: Iterable[Row], path: Union[str, Path] = MANIFEST) -> None:
    """Write rows, sorted by name, without the fields that are empty."""
    values = [
        {key: value for key, value in dataclasses.asdict(row).items() if value not in (None, {})}
        for row in sorted(rows, key=lambda row: row.name)
    ]
    write_json(path, values)
