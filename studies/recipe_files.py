"""recipes/: one YAML file per recipe, headed by what the paper and our own runs say about it."""

import textwrap
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import yaml

from studies import ROOT
from studies.generated import Outcome, stamped, write_texts
from studies.jobs import Job, published_command
from studies.recipes import RECIPES, Recipe
from studies.tables import Row, tables_of
from timm_alfa.tasks import TASKS

RECIPES_DIR = ROOT / 'recipes'


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line."""

    def represent_list(self, data):
        return self.represent_sequence('tag:yaml.org,2002:seq', data, flow_style=True)


_Dumper.add_representer(list, _Dumper.represent_list)


def render(recipe: Recipe, header: Iterable[str] = ()) -> str:
    """The content of a recipe's file.

    Args:
        recipe: The recipe.
        header: Lines about our own runs.
    """
    # the header, as comments
    lines = [f'{table.title}: {row.label}{_paper(row)}' for table, row in tables_of(recipe.name)]
    lines += header or ['Not run here yet.']
    lines.append(published_command(Job(recipe, recipe.first_seed)))
    wrap = textwrap.TextWrapper(116, subsequent_indent='  ', break_on_hyphens=False, break_long_words=False).wrap
    comments = [f'# {part}' for line in lines for part in wrap(line)]

    # the options, and the precision, which is the launcher's
    options = yaml.dump(ordered(recipe.options), Dumper=_Dumper, sort_keys=False, width=116)
    environment = yaml.dump({'environment': {'mixed_precision': recipe.mixed_precision}}, Dumper=_Dumper)
    return stamped('\n'.join(comments) + '\n' + options + environment, 'studies/recipes.py', '# {}')


def _paper(row: Row) -> str:
    paper = '' if row.paper is None else f'. Paper: {row.paper:.2f}'
    spread = '' if row.spread is None else f' ± {row.spread:.2f}'
    seconds = '' if row.seconds is None else f', {row.seconds:g} s per epoch'
    return paper + spread + seconds


def ordered(options: Mapping[str, Any]) -> dict[str, Any]:
    """Sorts model and method to the front; the rest keeps its order."""
    prefix = TASKS[options['task']].prefix.replace('-', '_')
    method = [key for key in options if key.startswith(f'{prefix}_')]
    first = [key for key in ('model', 'model_kwargs', 'task', *method) if key in options]
    rest = [key for key in options if key not in first]
    return {key: options[key] for key in (*first, *rest)}


def write_recipes(headers: Mapping[str, Sequence[str]], folder: Path = RECIPES_DIR) -> Outcome:
    """Writes all recipes that changed, and removes files of recipes that no longer exist.

    Args:
        headers: Lines about our own runs, by recipe.
        folder: Where they go.
    """
    texts = {recipe.file: render(recipe, headers.get(recipe.name, ())) for recipe in RECIPES.values()}
    return write_texts(folder, texts, '*.yaml')
