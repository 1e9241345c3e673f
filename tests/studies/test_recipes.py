"""Recipes are valid for train.py, their files are up to date, and tables say what the paper says."""

import functools
from pathlib import Path

import pytest
import timm
import torch
import yaml

import timm_alfa
from studies import records
from studies.headers import headers
from studies.recipe_files import RECIPES_DIR, ordered, render, write_recipes
from studies.recipes import RECIPES
from studies.tables import TABLES, tables_of
from timm_alfa.training.options.train_args import parse_args

PAPER_SCHEDULE = dict(epochs=200, lr=0.1, decay_milestones=(50.0, 150.0), decay_rate=0.1, warmup_updates=200)


@functools.cache
def parsed(name: str):
    return parse_args(['--config', str(RECIPES_DIR / RECIPES[name].file)])


@functools.cache
def network(name: str, channels: tuple):
    with torch.device('meta'):
        return timm.create_model(name, **(dict(channels=channels) if channels else {}))


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_is_valid_and_every_key_arrives(name, recwarn):
    config = parsed(name)
    assert not [str(w.message) for w in recwarn.list if 'no effect' in str(w.message)]
    flat = config.flat()
    for key, value in RECIPES[name].options.items():
        if isinstance(value, str) and value.endswith('/255'):
            value = float(value[:-4]) / 255
        assert flat[key] == value, key


@pytest.mark.parametrize('name', [name for name in RECIPES if 'alfa_blocks' in RECIPES[name].options])
def test_blocks_of_a_recipe_exist(name):
    options = RECIPES[name].options
    model = network(options['model'], tuple(options.get('model_kwargs', {}).get('channels', ())))
    blocks = timm_alfa.resolve_blocks(model, options['alfa_blocks'])
    counts = {'last': 1, 'units:9': 9, 'convs': 20, 'all': 4, 'layer3.2.bn2': 1}
    spec = options['alfa_blocks']
    assert len(blocks) == counts.get(spec, spec.count(',') + 1)


def test_files_are_up_to_date(tmp_path):
    write_recipes(headers(records.load_all()), tmp_path)
    fresh = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob('*.yaml')}
    committed = {path.relative_to(RECIPES_DIR): path.read_text() for path in RECIPES_DIR.rglob('*.yaml')}
    assert fresh == committed, 'run: python studies/report.py'


def test_each_recipe_has_a_file_in_the_folder_of_its_family():
    files = {
        'cifar100_resnet56s_l_alfa_gamma1': 'paper/cifar100_resnet56s_l_alfa_gamma1.yaml',
        'small': 'small/standard.yaml',
        'small_alfa': 'small/alfa.yaml',
        'smoke': 'smoke/standard.yaml',
        'cost_alfa_1_k3': 'cost/alfa_1_k3.yaml',
        'weights_resnet20s': 'weights/resnet20s.yaml',
    }
    assert {name: RECIPES[name].file for name in files} == files
    assert len({recipe.file for recipe in RECIPES.values()}) == len(RECIPES)


def test_recipes_of_committed_records_exist():
    names = {record['recipe'] for record in records.load_all()}
    assert names and names <= set(RECIPES)


def test_only_changed_files_are_written(tmp_path):
    assert len(write_recipes({}, tmp_path).changed) == len(RECIPES)
    assert write_recipes({}, tmp_path).changed == []
    assert write_recipes(dict(small=['Our runs: none.']), tmp_path).changed == [tmp_path / 'small' / 'standard.yaml']


@pytest.mark.parametrize(('task', 'first'), [('l_alfa', 'alfa_gamma'), ('adv_train', 'adv_train_eps')])
def test_options_of_the_method_come_after_the_model(task, first):
    options = {'epochs': 2, first: 1, 'task': task, 'model': 'resnet20s'}
    assert list(ordered(options)) == ['model', 'task', first, 'epochs']


def test_file_parses_to_the_options():
    for recipe in RECIPES.values():
        content = yaml.safe_load(render(recipe))
        assert content.pop('environment') == {'mixed_precision': recipe.mixed_precision}
        assert content == recipe.options


@pytest.mark.parametrize('name', [name for name in RECIPES if name.startswith('cifar')])
def test_cifar_follows_the_paper(name):
    config = parsed(name)
    schedule, optim, data = config.schedule, config.optim, config.data
    assert {key: getattr(schedule, key, None) or getattr(optim, key) for key in PAPER_SCHEDULE if key != 'lr'} | {
        'lr': optim.lr
    } == PAPER_SCHEDULE
    assert (optim.opt, optim.momentum, optim.weight_decay, optim.filter_bias_and_bn) == ('momentum', 0.9, 5e-4, False)
    assert (data.batch_size, data.val_fraction, data.train_subset) == (128, 0.1, None)
    assert (config.aug.crop_padding, config.aug.hflip, config.aug.smoothing, config.aug.mixes) == (4, 0.5, 0.0, False)


@pytest.mark.parametrize('name', [name for name in RECIPES if name.startswith('small')])
def test_small_recipes_differ_from_their_baseline_in_the_method_only(name):
    method = {'task', 'model_kwargs', 'smoothing', 'mixup', 'model_ema', 'model_ema_decay'}
    mine, base = RECIPES[name], RECIPES['small']

    def shared(recipe):
        prefixes = (*timm_alfa.list_tasks(), 'alfa_')
        return {
            key: value for key, value in recipe.options.items() if key not in method and not key.startswith(prefixes)
        }

    if name == 'small_gradient_double_rate':
        method |= {'lr', 'weight_decay'}
    assert shared(mine) == shared(base)
    assert mine.mixed_precision == base.mixed_precision == 'bf16'
    assert (base.options['train_subset'], base.options['epochs']) == (5000, 60)


def test_every_recipe_is_in_a_table_and_every_row_has_a_recipe():
    assert all(tables_of(name) for name in RECIPES)
    for table in TABLES.values():
        names = [row.recipe for row in table.rows]
        assert len(set(names)) == len(names)
        assert set(names) <= set(RECIPES)
        assert all(set(table.against(row)) <= set(names) - {row.recipe} for row in table.rows)


def test_all_tables_and_figures_of_the_paper_exist():
    names = ' '.join(TABLES)
    for wanted in (*(f'table{n}' for n in range(1, 11)), 'figure2', 'figure3', 'figure4', 'robust', 'small'):
        assert wanted in names


def test_gains_are_those_the_paper_prints():
    table = TABLES['table5_imagenet']
    gains = [table.paper_gain(row, 'imagenet_resnet18') for row in table.rows[1:]]
    assert gains == [0.81, -0.73, -1.96]
    assert [table.claim(row, 'imagenet_resnet18') for row in table.rows[1:]] == [1, -1, -1]
    seven = TABLES['table7_resnet18']
    alfa = next(row for row in seven.rows if row.label.startswith('ALFA'))
    assert {other: seven.paper_gain(alfa, other) for other in seven.against(alfa)} == {
        'cifar10_resnet18': 0.35,
        'cifar10_resnet18_noise': 0.31,
        'cifar10_resnet18_moex': 0.49,
        'cifar10_resnet18_advprop': 0.13,
        'cifar10_resnet18_double': None,
    }


def test_nothing_is_claimed_that_the_paper_does_not_claim():
    seven = TABLES['table7_resnet18']
    base = 'cifar10_resnet18'
    claims = {row.recipe.removeprefix(base): seven.claim(row, base) for row in seven.rows[1:]}
    assert claims == {'_double': None, '_noise': None, '_moex': None, '_advprop': 1, '_alfa_step1.0': 1}
    four = TABLES['table4']  # 1.5/255 is printed 0.04 above standard
    assert [four.claim(row, base) for row in four.rows[1:]] == [-1, 1, None, None, -1]


def test_files_name_nothing_of_this_machine():
    home = str(Path.home())
    for path in RECIPES_DIR.rglob('*.yaml'):
        text = path.read_text()
        assert home not in text
        assert 'hfds//' not in text
