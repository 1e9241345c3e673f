"""recipes/: one YAML a row, written from `rows.py` and headed by what the paper and our own runs say of it."""
import textwrap
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import yaml

from studies import ROOT
from studies.rows import RECIPES, Recipe
from studies.tables import tables_of

RECIPES_DIR = ROOT / 'recipes'


class _Dumper(yaml.SafeDumper):
    """Lists in one line."""


_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence('tag:yaml.org,2002:seq', data, flow_style=True))


def render(recipe: Recipe, header: Iterable[str] = ()) -> str:
    """A recipe's file.

    Args:
        header: Lines on our own runs.
    """
    lines = [f'{title}: {label}{paper}' for title, label, paper in _places(recipe)]
    lines += header or ['Not run here yet.']
    precision = '' if recipe.mixed_precision == 'no' else f' --mixed_precision {recipe.mixed_precision}'
    lines.append(f'accelerate launch{precision} train.py --config recipes/{recipe.name}.yaml --seed 0')
    wrap = textwrap.TextWrapper(116, subsequent_indent='  ', break_on_hyphens=False).wrap
    body = yaml.dump(ordered(recipe.options), Dumper=_Dumper, sort_keys=False, width=116)
    environment = yaml.dump({'environment': {'mixed_precision': recipe.mixed_precision}}, Dumper=_Dumper)
    return '\n'.join(f'# {part}' for line in lines for part in wrap(line)) + '\n' + body + environment


def _places(recipe: Recipe) -> list[tuple[str, str, str]]:
    places = []
    for table, row in tables_of(recipe.name):
        paper = '' if row.paper is None else f'. Paper: {row.paper:.2f}'
        paper += '' if row.spread is None else f' ± {row.spread:.2f}'
        paper += '' if row.seconds is None else f', {row.seconds:g} s an epoch'
        places.append((table.title, row.label, paper))
    return places


def ordered(options: Mapping[str, Any]) -> dict[str, Any]:
    """Model and method first, then the rest as it comes."""
    method = [key for key in options if key.startswith(f"{prefix(options['task'])}_")]
    first = [key for key in ('model', 'model_kwargs', 'task', *method) if key in options]
    return {key: options[key] for key in (*first, *(key for key in options if key not in first))}


def prefix(task: str) -> str:
    """What a task's keys begin with."""
    return {'l_alfa': 'alfa'}.get(task, task)


def write_recipes(headers: Mapping[str, Sequence[str]], folder: Path = RECIPES_DIR) -> list[Path]:
    """Writes all recipes, those that changed, and removes files of recipes that are no more.

    Args:
        headers: Lines on our own runs, by recipe.

    Returns:
        What was written or removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for recipe in RECIPES.values():
        path, text = folder / f'{recipe.name}.yaml', render(recipe, headers.get(recipe.name, ()))
        if not path.exists() or path.read_text(encoding='utf-8') != text:
            path.write_text(text, encoding='utf-8')
            changed.append(path)
    for path in folder.glob('*.yaml'):
        if path.stem not in RECIPES:
            path.unlink()
            changed.append(path)
    return changed
