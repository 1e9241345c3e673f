"""Recipes by name."""

import warnings

import pytest

from timm_alfa.errors import AlfaWarning, ConfigError
from timm_alfa.training.options import recipes
from timm_alfa.training.options.recipes import find_recipe, recipe_names
from timm_alfa.training.options.train_args import parse_args

NAMES = ('alfa', 'standard')


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


@pytest.mark.parametrize('name', [name for name in recipe_names() if name.startswith('finetune/')])
def test_recipes_of_fine_tuning_fit_any_model(name, runs):
    """They warm up and decay to their lowest rate, and say so without warnings; any architecture takes them."""
    argv = ('--config', name, '--no-pretrained', '--model', 'test_vit', '--epochs', '4', '--warmup-epochs', '1')
    with warnings.catch_warnings():
        warnings.simplefilter('error', AlfaWarning)
        config = parse_args(['--config', name, '--data-dir', 'x'])
        warnings.filterwarnings('ignore', message='.*(freezes random weights|EMA is still)')
        run = runs.prepare(*argv, '--loader', 'timm')
    assert config.model.pretrained and config.ema.model_ema == config.ema.model_ema_warmup
    assert config.schedule.warmup_epochs < config.epochs / 4
    rates = []
    for update in range(4 * run.updates_per_epoch):
        rates.append(run.current_lr)
        run.schedule.step_update(update + 1)
    top = rates.index(max(rates))
    assert top == run.updates_per_epoch and rates[0] < 1e-6 and rates[-1] < rates[top] / 10
    assert rates[top] == pytest.approx(config.optim.lr, rel=0.2)


def test_the_recipes_of_fine_tuning_differ_in_the_method_only():
    alfa, standard = (parse_args(['--config', f'finetune/{name}', '--data-dir', 'x']).flat() for name in NAMES)
    differing = {key for key in alfa.keys() & standard.keys() if alfa[key] != standard[key]}
    assert differing == {'task'}
