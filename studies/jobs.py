"""A job: one recipe with one seed at one scale; its name, its options, its command."""
import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Optional

from studies import ROOT
from studies.rows import RECIPES, Recipe
from studies.tables import TABLES

HUB = 'hfds/'


@dataclass(frozen=True)
class Job:
    """What is run.

    Args:
        scale: Of the epochs and milestones; 1 is the recipe as it stands.
        mixed_precision: In place of the recipe's.
    """
    recipe: Recipe
    seed: int
    scale: float = 1.0
    mixed_precision: Optional[str] = None

    @property
    def precision(self) -> str:
        return self.mixed_precision or self.recipe.mixed_precision

    @property
    def group(self) -> str:
        """The name without the seed: what runs that are averaged have in common."""
        scale = '' if self.scale == 1 else f'-x{self.scale:g}'
        other = '' if self.precision == self.recipe.mixed_precision else f'-{self.precision}'
        return f'{self.recipe.name}{scale}{other}'

    @property
    def name(self) -> str:
        return f'{self.group}-s{self.seed}'

    @property
    def options(self) -> dict[str, Any]:
        """The recipe's options at this scale."""
        return {**self.recipe.options, **scaled(self.recipe.options, self.scale)}

    @property
    def digest(self) -> str:
        """Of all that a run depends on: a recipe that changes never goes on from an older one's state."""
        text = json.dumps([self.options, self.precision, self.seed], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    @property
    def folder(self) -> str:
        """The run's folder in the output folder."""
        return f'{self.name}-{self.digest}'


def scaled(options: dict[str, Any], scale: float) -> dict[str, Any]:
    """The options that a scaled schedule changes: epochs, and milestones at the same share of them.

    Warm-up stays: it is counted in updates, and there for the first ones whatever follows.
    """
    if scale == 1:
        return {}
    epochs = max(1, round(options['epochs'] * scale))
    change: dict[str, Any] = dict(epochs=epochs)
    if 'decay_milestones' in options:
        ratio = epochs / options['epochs']
        change['decay_milestones'] = [round(milestone * ratio, 4) for milestone in options['decay_milestones']]
    return change


def local_dataset(name: str, root: Optional[Path]) -> str:
    """A data set of the Hub, or the folder of the same name under `root`.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if root is None or not name.startswith(HUB):
        return name
    folder = root.expanduser().resolve() / name.rsplit('/', 1)[1]
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder '{folder}' for {name}: --dataset-root is the folder that holds it.")
    return f'{HUB}{folder}'


def train_command(job: Job, output: Path, root: Optional[Path] = None) -> list[str]:
    """train.py with the job's recipe, resuming whatever there is."""
    command = [sys.executable, str(ROOT / 'train.py'), '--config', str(ROOT / 'recipes' / f'{job.recipe.name}.yaml'),
               '--seed', str(job.seed), '--output', str(output), '--experiment', job.folder, '--resume', 'auto']
    dataset = local_dataset(job.options['dataset'], root)
    if dataset != job.options['dataset']:
        command += ['--dataset', dataset]
    for key, value in scaled(job.recipe.options, job.scale).items():
        command += ['--' + key.replace('_', '-'), *(map(str, value) if isinstance(value, list) else [str(value)])]
    return command


def robust_command(job: Job, run: Path, root: Optional[Path] = None) -> list[str]:
    """validate.py under attack, on the best checkpoint and the test split."""
    options = job.options
    return [sys.executable, str(ROOT / 'validate.py'), '--checkpoint', str(run), '--robust', '--dataset',
            local_dataset(options['dataset'], root), '--split', options['val_split'],
            *(word for key in ('input_key', 'target_key') if key in options
              for word in ('--' + key.replace('_', '-'), options[key]))]


def published_command(job: Job) -> str:
    """What reproduces the run, for its record: nothing of this machine."""
    extra = ''.join(f" --{key.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
                    for key, value in scaled(job.recipe.options, job.scale).items())
    precision = '' if job.precision == 'no' else f' --mixed_precision {job.precision}'
    return (f'accelerate launch{precision} train.py --config recipes/{job.recipe.name}.yaml --seed {job.seed}{extra}')


def parse_seeds(text: str) -> list[int]:
    """Seeds from a count ('3' is 0, 1, 2), a range ('3-5') or a list ('0,4'; of one: '4,').

    Raises:
        ValueError: It is none of them.
    """
    if re.fullmatch(r'[1-9]\d*', text):
        return list(range(int(text)))
    seeds: list[int] = []
    for part in text.removesuffix(',').split(','):
        match = re.fullmatch(r'(\d+)(?:-(\d+))?', part)
        if not match:
            raise ValueError(f"--seeds is '{text}': give a count (3), a range (3-5) or a list (0,4; of one seed: 4,).")
        first = int(match[1])
        seeds += range(first, int(match[2] or first) + 1)
    return sorted(set(seeds))


def recipe_names(words: Iterable[str]) -> list[str]:
    """Recipes that tables, beginnings of their names, or recipes' own names stand for, each once.

    Raises:
        ValueError: A word stands for nothing.
    """
    names: list[str] = []
    for word in words:
        tables = [TABLES[word]] if word in TABLES else [t for t in TABLES.values() if t.name.startswith(f'{word}_')]
        if tables:
            names += [row.recipe for table in tables for row in table.rows]
        elif word in RECIPES:
            names.append(word)
        else:
            raise ValueError(f"'{word}' is no table and no recipe: `python studies/run.py --list` shows them.")
    return list(dict.fromkeys(names))


def make_jobs(words: Iterable[str], seeds: Optional[list[int]] = None, scale: float = 1.0,
              mixed_precision: Optional[str] = None) -> list[Job]:
    """Jobs of some tables: rows that want most seeds first, those seed by seed, so that pairs are complete early."""
    jobs = [Job(RECIPES[name], seed, scale, mixed_precision) for name in recipe_names(words)
            for seed in (seeds if seeds is not None else range(RECIPES[name].seeds))]
    return sorted(jobs, key=lambda job: (-job.recipe.seeds, job.seed))
