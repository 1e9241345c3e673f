"""Recipes by name: the YAML files of recipes/, which are part of the installed package."""

from difflib import get_close_matches
from pathlib import Path

from timm_alfa.utils.program import PACKAGE


def recipe_folder() -> Path:
    """Where the recipes are: in the package if it was installed, beside it in a clone."""
    inside = PACKAGE / 'recipes'
    return inside if inside.is_dir() else PACKAGE.parent / 'recipes'


def recipe_names() -> list[str]:
    """The names of all recipes, such as 'small/alfa'."""
    folder = recipe_folder()
    return sorted(path.relative_to(folder).with_suffix('').as_posix() for path in folder.glob('*/*.yaml'))


def find_recipe(given: str) -> str:
    """The file that --config means: a path if there is such a file, else a recipe; `given` if it is neither.

    Args:
        given: A path, or the name of a recipe, which may be written as its path in a clone.
    """
    if Path(given).exists():
        return given
    name = given.removeprefix('recipes/').removesuffix('.yaml')
    return str(recipe_folder() / f'{name}.yaml') if name in recipe_names() else given


def recipe_hint(given: str) -> str:
    """Names of recipes that are near, or the kinds of recipes there are; follows a sentence."""
    names = recipe_names()
    name = given.removeprefix('recipes/').removesuffix('.yaml')
    if near := get_close_matches(name, names, n=3):
        return f' Did you mean {" or ".join(map(repr, near))}?'
    kinds = dict.fromkeys(name.partition('/')[0] for name in names)
    return f' Recipes: {", ".join(f"{kind}/..." for kind in kinds)}.' if kinds else ''
