"""Every recipe is legal for train.py, is the file that the rows give, and says what the paper says."""
import functools
from pathlib import Path

import pytest
import timm
import torch
import yaml

import timm_alfa
from studies import records
from studies.headers import headers
from studies.recipes import RECIPES_DIR, render, write_recipes
from studies.rows import RECIPES
from studies.tables import TABLES, tables_of
from timm_alfa.training.options.train_args import parse_args

PAPER_SCHEDULE = dict(epochs=200, lr=0.1, decay_milestones=(50.0, 150.0), decay_rate=0.1, warmup_updates=200)


@functools.cache
def parsed(name: str):
    return parse_args(['--config', str(RECIPES_DIR / f'{name}.yaml')])


@functools.cache
def network(name: str, channels: tuple):
    with torch.device('meta'):
        return timm.create_model(name, **(dict(channels=channels) if channels else {}))


@pytest.mark.parametrize('name', RECIPES)
def test_is_legal_and_every_key_arrives(name, recwarn):
    config = parsed(name)
    assert not [str(w.message) for w in recwarn.list if 'no effect' in str(w.message)]
    flat = config.flat()
    for key, value in RECIPES[name].options.items():
        if isinstance(value, str) and value.endswith('/255'):
            value = float(value[:-4]) / 255
        assert flat[key] == value, key


@pytest.mark.parametrize('name', [name for name in RECIPES if 'alfa_blocks' in RECIPES[name].options])
def test_its_blocks_are_there(name):
    options = RECIPES[name].options
    model = network(options['model'], tuple(options.get('model_kwargs', {}).get('channels', ())))
    blocks = timm_alfa.resolve_blocks(model, options['alfa_blocks'])
    counts = {'last': 1, 'units:9': 9, 'convs': 20, 'all': 4, 'layer3.2.bn2': 1}
    spec = options['alfa_blocks']
    assert len(blocks) == counts.get(spec, spec.count(',') + 1)


def test_files_are_what_the_rows_give(tmp_path):
    write_recipes(headers(records.load_all()), tmp_path)
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in RECIPES_DIR.glob('*.yaml')}
    assert fresh == committed, 'run: python studies/report.py'


def test_a_file_of_no_row_is_removed_and_an_unchanged_one_left_alone(tmp_path):
    (tmp_path / 'old.yaml').write_text('model: resnet20s\n')
    assert len(write_recipes({}, tmp_path)) == len(RECIPES) + 1
    assert not (tmp_path / 'old.yaml').exists()
    assert write_recipes({}, tmp_path) == []
    (tmp_path / 'small.yaml').write_text('model: resnet56s\n')
    assert write_recipes({}, tmp_path) == [tmp_path / 'small.yaml']


def test_text_reads_back_as_the_options():
    for recipe in RECIPES.values():
        content = yaml.safe_load(render(recipe))
        assert content.pop('environment') == {'mixed_precision': recipe.mixed_precision}
        assert content == recipe.options


@pytest.mark.parametrize('name', [name for name in RECIPES if name.startswith('cifar')])
def test_cifar_follows_the_paper(name):
    config = parsed(name)
    schedule, optim, data = config.schedule, config.optim, config.data
    assert {key: getattr(schedule, key, None) or getattr(optim, key) for key in PAPER_SCHEDULE
            if key != 'lr'} | {'lr': optim.lr} == PAPER_SCHEDULE
    assert (optim.opt, optim.momentum, optim.weight_decay, optim.filter_bias_and_bn) == ('momentum', 0.9, 5e-4, False)
    assert (data.batch_size, data.val_fraction, data.train_subset) == (128, 0.1, None)
    assert (config.aug.crop_padding, config.aug.hflip, config.aug.smoothing, config.aug.mixes) == (4, 0.5, 0.0, False)


@pytest.mark.parametrize('name', [name for name in RECIPES if name.startswith('small')])
def test_small_ones_differ_from_their_yardstick_in_the_method_alone(name):
    method = {'task', 'model_kwargs', 'smoothing', 'mixup', 'model_ema', 'model_ema_decay'}
    mine, base = RECIPES[name], RECIPES['small']
    shared = lambda recipe: {k: v for k, v in recipe.options.items()  # noqa: E731
                             if k not in method and not k.startswith((*timm_alfa.list_tasks(), 'alfa_'))}
    assert shared(mine) == shared(base)
    assert mine.mixed_precision == base.mixed_precision == 'bf16'
    assert (base.options['train_subset'], base.options['epochs']) == (5000, 60)


def test_every_recipe_stands_in_a_table_and_every_row_has_one():
    assert all(tables_of(name) for name in RECIPES)
    for table in TABLES.values():
        names = [row.recipe for row in table.rows]
        assert len(set(names)) == len(names)
        assert set(names) <= set(RECIPES)
        assert all(set(table.against(row)) <= set(names) - {row.recipe} for row in table.rows)


def test_tables_1_to_10_and_the_figures_are_all_there():
    names = ' '.join(TABLES)
    for wanted in (*(f'table{n}' for n in range(1, 11)), 'figure2', 'figure3', 'figure4', 'robust', 'small'):
        assert wanted in names


def test_gains_of_the_paper_are_those_it_prints():
    table = TABLES['table5_imagenet']
    gains = [table.paper_gain(row, 'imagenet_resnet18') for row in table.rows[1:]]
    assert gains == [0.81, -0.73, -1.96]
    assert [table.claim(row, 'imagenet_resnet18') for row in table.rows[1:]] == [1, -1, -1]
    seven = TABLES['table7_resnet18']
    alfa = next(row for row in seven.rows if row.label.startswith('ALFA'))
    assert {other: seven.paper_gain(alfa, other) for other in seven.against(alfa)} == {
        'cifar10_resnet18': 0.35, 'cifar10_resnet18_noise': 0.31, 'cifar10_resnet18_moex': 0.49,
        'cifar10_resnet18_advprop': 0.13, 'cifar10_resnet18_double': None}


def test_what_the_paper_does_not_claim_is_no_claim():
    seven = TABLES['table7_resnet18']
    base = 'cifar10_resnet18'
    claims = {row.recipe.removeprefix(base): seven.claim(row, base) for row in seven.rows[1:]}
    assert claims == {'_double': None, '_noise': None, '_moex': None, '_advprop': 1, '_alfa_step1.0': 1}
    four = TABLES['table4']  # 1.5/255 is printed 0.04 above standard
    assert [four.claim(row, base) for row in four.rows[1:]] == [-1, 1, None, None, -1]


def test_nothing_of_this_machine_is_in_them():
    home = str(Path.home())
    for path in RECIPES_DIR.glob('*.yaml'):
        text = path.read_text()
        assert home not in text
        assert 'hfds//' not in text
