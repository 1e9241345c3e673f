"""Recipes by name."""

import pytest

from timm_alfa.errors import ConfigError
from timm_alfa.training.options import recipes
from timm_alfa.training.options.recipes import find_recipe, recipe_names
from timm_alfa.training.options.train_args import parse_args


@pytest.mark.parametrize('name', ['small/alfa', 'small/alfa.yaml', 'recipes/small/alfa.yaml'])
def test_a_name_is_a_recipe_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_args(['--config', name, '--epochs', '3'])
    assert (config.data.train_subset, config.epochs) == (5000, 3)


def test_a_path_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'small').mkdir()
    (tmp_path / 'small/alfa').write_text('epochs: 7\n')
    assert parse_args(['--config', 'small/alfa']).epochs == 7


def test_installed_recipes_are_in_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, 'PACKAGE', tmp_path / 'timm_alfa')
    (tmp_path / 'timm_alfa/recipes/own').mkdir(parents=True)
    file = tmp_path / 'timm_alfa/recipes/own/one.yaml'
    file.write_text('epochs: 1\n')
    assert recipe_names() == ['own/one'] and find_recipe('own/one') == str(file)


@pytest.mark.parametrize(
    ('given', 'part'), [('small/alpha', "Did you mean 'small/alfa'"), ('/none', 'Recipes: cost/..., ')]
)
def test_a_name_that_is_neither_is_refused(given, part):
    with pytest.raises(ConfigError) as caught:
        parse_args(['--config', given])
    assert f"--config is '{given}', which cannot be read: No such file" in str(caught.value) and part in str(
        caught.value
    )
