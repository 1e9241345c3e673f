"""A job is one recipe with one seed: its name, its options and its commands."""

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Optional, Sequence

from studies import ROOT
from studies.protocols import SCORING
from studies.recipes import RECIPES, Recipe
from studies.tables import TABLES
from timm_alfa.options import long_flag
from timm_alfa.utils.program import launch_command

HUB = 'hfds/'


@dataclass(frozen=True)
class Job:
    """One run of a recipe.

    Attributes:
        recipe: What is run.
        seed: Its seed.
        scale: Factor of the epochs and milestones; 1 is the recipe as written.
        mixed_precision: Overrides the recipe's.
    """

    recipe: Recipe
    seed: int
    scale: float = 1.0
    mixed_precision: Optional[str] = None

    @property
    def precision(self) -> str:
        """The mixed precision that the run uses."""
        return self.mixed_precision or self.recipe.mixed_precision

    @property
    def group(self) -> str:
        """The name without the seed, which is the same for all runs that are averaged."""
        scale = '' if self.scale == 1 else f'-x{self.scale:g}'
        other = '' if self.precision == self.recipe.mixed_precision else f'-{self.precision}'
        return f'{self.recipe.name}{scale}{other}'

    @property
    def name(self) -> str:
        """Name of the record."""
        return f'{self.group}-s{self.seed}'

    @property
    def options(self) -> dict[str, Any]:
        """The recipe's options at this scale."""
        return {**self.recipe.options, **scaled(self.recipe.options, self.scale)}

    @property
    def digest(self) -> str:
        """Hash of everything that a run depends on, so that a changed recipe never resumes an older state."""
        text = json.dumps([trained(self.options), self.precision, self.seed], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    @property
    def folder(self) -> str:
        """Name of the run folder."""
        return f'{self.name}-{self.digest}'


def trained(options: dict[str, Any]) -> dict[str, Any]:
    """The options that decide what a run computes, without those that only score more."""
    return {key: value for key, value in options.items() if key not in SCORING}


def scaled(options: dict[str, Any], scale: float) -> dict[str, Any]:
    """The options that a scaled schedule changes: epochs, and milestones at the same fraction of them.

    Warm-up stays as it is: it covers the first updates, however many follow.
    """
    if scale == 1:
        return {}
    epochs = max(1, round(options['epochs'] * scale))
    change: dict[str, Any] = dict(epochs=epochs)
    if 'decay_milestones' in options:
        ratio = epochs / options['epochs']
        change['decay_milestones'] = [round(milestone * ratio, 4) for milestone in options['decay_milestones']]
    return change


def flags(options: dict[str, Any]) -> list[str]:
    """Options as words of a command line."""
    words = []
    for key, value in options.items():
        words.append(long_flag(key))
        words += map(str, value) if isinstance(value, list) else [str(value)]
    return words


def local_dataset(name: str, root: Optional[Path]) -> str:
    """A dataset's name, or the folder with its local copy under `root` if it is one of the Hub.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if root is None or not name.startswith(HUB):
        return name
    folder = root.expanduser().resolve() / name.rsplit('/', 1)[1]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"'{folder}' does not exist: --dataset-root must be the folder that holds the copy of {name}."
        )
    return f'{HUB}{folder}'


def train_command(job: Job, output: Path, root: Optional[Path] = None) -> list[str]:
    """The command that trains, and resumes whatever is there."""
    command = [
        sys.executable,
        str(ROOT / 'train.py'),
        '--config',
        str(ROOT / 'recipes' / job.recipe.file),
        '--seed',
        str(job.seed),
        '--output',
        str(output),
        '--experiment',
        job.folder,
        '--resume',
        'auto',
    ]
    dataset = local_dataset(job.options['dataset'], root)
    if dataset != job.options['dataset']:
        command += ['--dataset', dataset]
    return command + flags(scaled(job.recipe.options, job.scale))


def robust_command(job: Job, run: Path, root: Optional[Path] = None) -> list[str]:
    """The command that attacks the best checkpoint on the test split."""
    options = job.options
    keys = {key: options[key] for key in ('input_key', 'target_key') if key in options}
    return [
        sys.executable,
        str(ROOT / 'validate.py'),
        '--checkpoint',
        str(run),
        '--robust',
        '--dataset',
        local_dataset(options['dataset'], root),
        '--split',
        options['val_split'],
        *flags(keys),
    ]


def published_command(job: Job, how: Sequence[str] = ()) -> str:
    """The command that reproduces the run, without anything of this machine.

    Args:
        how: Flags of how the run was made that are no part of its recipe.
    """
    config = f'recipes/{job.recipe.file}'
    change = [*flags(scaled(job.recipe.options, job.scale)), *how]
    return launch_command('train.py', '--config', config, '--seed', job.seed, *change, mixed_precision=job.precision)


def parse_seeds(text: str) -> list[int]:
    """Parses a count ('3' is 0, 1, 2), a range ('3-5') or a list ('0,4'; one seed is '4,').

    Raises:
        ValueError: It is none of them.
    """
    if re.fullmatch(r'[1-9]\d*', text):
        return list(range(int(text)))
    seeds: list[int] = []
    for part in text.removesuffix(',').split(','):
        match = re.fullmatch(r'(\d+)(?:-(\d+))?', part)
        if not match:
            raise ValueError(f"--seeds is '{text}': pass a count (3), a range (3-5) or a list (0,4; one seed is 4,).")
        first = int(match[1])
        seeds += range(first, int(match[2] or first) + 1)
    return sorted(set(seeds))


def recipe_names(words: Iterable[str]) -> list[str]:
    """Resolves names of tables, prefixes of such names, and names of recipes to recipes, each once.

    Raises:
        ValueError: A word is none of them.
    """
    names: list[str] = []
    for word in words:
        tables = [TABLES[word]] if word in TABLES else [t for t in TABLES.values() if t.name.startswith(f'{word}_')]
        if tables:
            names += [row.recipe for table in tables for row in table.rows]
        elif word in RECIPES:
            names.append(word)
        else:
            raise ValueError(f"'{word}' is not a table or a recipe: `python studies/run.py --list` shows all.")
    return list(dict.fromkeys(names))


def make_jobs(
    words: Iterable[str],
    seeds: Optional[list[int]] = None,
    scale: float = 1.0,
    mixed_precision: Optional[str] = None,
) -> list[Job]:
    """The jobs of some tables or recipes, in an order that completes pairs early.

    Recipes that plan the most seeds come first, and among those the jobs go seed by seed.
    """
    jobs = []
    for name in recipe_names(words):
        recipe = RECIPES[name]
        for seed in seeds if seeds is not None else recipe.planned_seeds:
            jobs.append(Job(recipe, seed, scale, mixed_precision))
    return sorted(jobs, key=lambda job: (-job.recipe.seeds, job.seed))
