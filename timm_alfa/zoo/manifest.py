"""The one list of what is published: rows of manifest.json."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional, Union, get_origin

from timm_alfa.errors import HubError
from timm_alfa.options import core_type, hints, is_optional
from timm_alfa.utils.files import write_json
from timm_alfa.utils.plain_data import read_json

MANIFEST = Path(__file__).with_name('manifest.json')
_CFG_KEYS = ('input_size', 'mean', 'std', 'interpolation', 'crop_pct', 'num_classes')
_FEW = 100  # class names that a row has room for; ImageNet's are in the repo's config.json


@dataclasses.dataclass(frozen=True)
class Row:
    """One published checkpoint.

    Attributes:
        name: `architecture.tag`, as `timm.create_model` takes it.
        sha256: Of model.safetensors, 64 hexadecimal digits.
        size: Of model.safetensors, in bytes.
        top1: Percent, on `split`.
        split: The dataset's split that `top1` was measured on.
        precision: The precision that `top1` was measured in, 'bf16' or 'fp16'; None for float32.
        repo_id: Its repo on the Hub; None for weights that are only in the package.
        revision: The Hub's commit.
        commit: This project's commit that trained it.
        recipe: What it was trained by, as `--config` takes it, such as 'weights/resnet20s'.
        seed: Of its training.
        epochs: Of its training.
        robust_top1: Percent under validate.py's PGD attack, on `split`.
        file: The folder with model.safetensors, relative to the manifest, for weights that ship in the package; it
            takes precedence over `repo_id` if it is there.
        pretrained_cfg: Input size, normalization and classes (with names if they are few), as in config.json.
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
    recipe: Optional[str] = None
    seed: Optional[int] = None
    epochs: Optional[int] = None
    robust_top1: Optional[float] = None
    file: Optional[str] = None
    pretrained_cfg: dict[str, Any] = dataclasses.field(default_factory=dict)


_FIELDS = {field.name for field in dataclasses.fields(Row)}
_TYPES = hints(Row)
_REQUIRED = {'name', 'sha256', 'size', 'top1', 'split'}


def cfg_of(config: dict) -> dict[str, Any]:
    """What a row keeps of a published config.json."""
    both = {**config.get('pretrained_cfg', {}), 'num_classes': config['num_classes']}
    kept = {key: both[key] for key in _CFG_KEYS if key in both}
    labels = config.get('label_names')
    if isinstance(labels, list) and len(labels) <= _FEW:
        kept['label_names'] = labels
    return kept


def load_manifest(path: Union[str, Path] = MANIFEST) -> dict[str, Row]:
    """Read the rows, by name.

    Raises:
        HubError: The file cannot be read, or rows are wrong: all of them in one line.
    """
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise HubError(f'{path} is not a manifest ({error}): it must hold a JSON list of rows.') from error
    if not isinstance(values, list):
        raise HubError(f'{path} is not a manifest: it must hold a JSON list of rows.')
    found = [error for row in values for error in _errors(row)]
    found += [f'{name} is listed twice' for name in _repeated(values)]
    if found:
        raise HubError(f'{path}: {"; ".join(found)}.')
    return {row['name']: Row(**row) for row in values}


def save_manifest(rows: Iterable[Row], path: Union[str, Path] = MANIFEST) -> None:
    """Write rows, sorted by name, without their empty fields."""
    values = []
    for row in sorted(rows, key=lambda row: row.name):
        fields = dataclasses.asdict(row)
        values.append({key: value for key, value in fields.items() if value not in (None, {})})
    write_json(path, values)


def _errors(values: Any) -> Iterable[str]:
    """What is wrong with a row, one line each."""
    if not isinstance(values, dict):
        yield f'{values!r} is not a row: a row is a mapping'
        return
    name = values.get('name', 'a row')
    if wrong := [key for key, value in values.items() if key in _FIELDS and not _fits(key, value)]:
        yield f'{name} has {", ".join(wrong)} of another type'
        return
    if missing := sorted(_REQUIRED - values.keys()):
        yield f'{name} lacks {", ".join(missing)}'
    if unknown := sorted(values.keys() - _FIELDS):
        yield f'{name} has unknown {", ".join(unknown)}'
    if not re.fullmatch('[0-9a-f]{64}', str(values.get('sha256'))):
        yield f'{name}: sha256 must be 64 hexadecimal digits'
    if unknown := sorted(set(values.get('pretrained_cfg') or {}) - {*_CFG_KEYS, 'label_names'}):
        yield f'{name}: pretrained_cfg has unknown {", ".join(unknown)}'
    if not values.get('repo_id') and not values.get('file'):
        yield f'{name} has neither repo_id nor file'


def _fits(key: str, value: Any) -> bool:
    """Whether a field's value has the type that `Row` declares."""
    annotation = _TYPES[key]
    if value is None:
        return is_optional(annotation)
    kind = core_type(annotation)
    allowed = {float: (int, float)}.get(kind, get_origin(kind) or kind)
    return isinstance(value, allowed) and not isinstance(value, bool)


def _repeated(values: list[Any]) -> list[str]:
    names = [str(row.get('name')) for row in values if isinstance(row, dict)]
    return sorted({name for name in names if names.count(name) > 1})
