"""Writing the files of a repo, shipping small weights, and reproducing an accuracy."""

import dataclasses
import json
import math
import os
import random

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

import timm_alfa.zoo as zoo
from timm_alfa.data import DataConfig, create_eval_loader
from timm_alfa.data.loaders.sampling import random_split
from timm_alfa.errors import AlfaError, CheckpointError, HubError
from timm_alfa.publishing import ship as shipping
from timm_alfa.publishing import verify
from timm_alfa.publishing.model_checks import load_model
from timm_alfa.publishing.publish import Publication, check_repo_id, publish, recipe_of
from timm_alfa.publishing.verify import check_accuracy, sample_accuracy, tolerance
from timm_alfa.training.run_dir.finished import read_run
from timm_alfa.utils.files import sha256_of
from timm_alfa.zoo.hub_client import is_transient, retry

REPO = 'me/resnet20s.alfa_c10'


def test_a_dry_run_writes_what_timm_loads_bit_for_bit(make_run, tmp_path):
    run = make_run()
    record = publish(Publication(run, REPO), output=tmp_path / 'out')
    out = tmp_path / 'out'
    assert record['status'] == 'dry-run'
    assert sorted(str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()) == record['files']
    model = timm.create_model(f'local-dir:{out}', pretrained=True).eval()
    input = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(input), load_model(read_run(run))(input))
    assert (
        record['manifest_row']['sha256']
        == sha256_of(out / 'model.safetensors')
        == sha256_of(run / 'model_best.safetensors')
    )
    cfg = json.loads((out / 'config.json').read_text())['pretrained_cfg']
    assert (cfg['tag'], cfg['license']) == ('alfa_c10', 'apache-2.0')
    assert 'paper_ids' not in cfg  # the architecture's paper did not train these weights
    assert str(run) not in (out / 'result.json').read_text()


@pytest.mark.parametrize(
    ('given', 'recipe'),
    [
        ('small/alfa', 'small/alfa'),
        ('recipes/weights/resnet20s.yaml', 'weights/resnet20s'),
        ('.../recipes/weights/resnet20s.yaml', 'weights/resnet20s'),
        ('mine.yaml', None),
        ('mine/alfa.yaml', None),
    ],
)
def test_a_row_names_the_recipe(given, recipe):
    assert recipe_of(['train.py', '--seed', '0', '--config', given]) == recipe
    assert recipe_of(['train.py', '--seed', '0']) is None


def test_an_output_that_holds_something_is_left_alone(make_run, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine').write_text('x')
    with pytest.raises(HubError, match='not an empty folder'):
        publish(Publication(make_run(), REPO), output=tmp_path / 'out')
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['mine']


ATTACK = {'steps': 20, 'step_size': 2 / 255, 'eps': 8 / 255, 'restarts': 1, 'random_start': True}


def validated(file, *runs, **values):
    """validate.py's output: a line that is not JSON, and a record of each run."""
    lines = [
        json.dumps(
            {
                'status': 'finished',
                'checkpoint': str(run),
                'checkpoint_sha256': sha256_of(run / 'model_best.safetensors'),
                'split': 'test',
                'count': 10000,
                'top1': read_run(run).evaluation.top1,
                'robust_top1': 12.5 + i,
                'attack': ATTACK,
                **values,
            }
        )
        for i, run in enumerate(runs)
    ]
    file.write_text('\n'.join(['model: ...', *lines]))
    return file


def test_accuracy_under_attack_as_validate_measured_it(make_run, tmp_path):
    run, standard = make_run(), make_run(task='standard')
    save_file(
        {key: value + 1 for key, value in load_file(standard / 'model_best.safetensors').items()},
        standard / 'model_best.safetensors',
    )
    out = tmp_path / 'out'
    publish(Publication(run, REPO, standard=standard, validated=validated(tmp_path / 'v', run, standard)), output=out)
    card = (out / 'README.md').read_text()
    assert '| This model | 91.75 | 99.60 | 12.50 |' in card
    assert '| Standard training with the same code | 91.75 | 99.60 | 13.50 |' in card
    assert '(steps 20, step_size 2/255, eps 8/255, restarts 1, random_start True)' in card
    assert json.loads((out / 'result.json').read_text())['robust_top1'] == 12.5
    publish(Publication(run, REPO, validated=validated(tmp_path / 'v', run)), output=tmp_path / 'alone')
    lines = [
        validated(tmp_path / 'v', each, attack={**ATTACK, 'steps': 10 * i}).read_text()
        for i, each in enumerate((run, standard), 1)
    ]
    (tmp_path / 'v').write_text('\n'.join(lines))
    with pytest.raises(HubError, match='attacked with steps 20.*this run with steps 10'):
        publish(Publication(run, REPO, standard=standard, validated=tmp_path / 'v'), output=tmp_path / 'no')


@pytest.mark.parametrize(
    ('values', 'says'),
    [
        ({'checkpoint_sha256': 'a' * 64}, 'not that of the weights that are published'),
        ({'checkpoint_sha256': None}, 'not that of the weights that are published'),
        ({'split': 'train'}, r'images of split train, .* of split test\. Run: .*validate\.py .*--split test'),
        ({'count': 1000}, r'1000 images'),
        ({'attack': None, 'robust_top1': None}, 'made without --robust'),
        ({'top1': 80.0}, r'states 91\.75% on test'),
    ],
)
def test_a_record_of_validate_for_something_else(make_run, tmp_path, values, says):
    run = make_run()
    with pytest.raises(AlfaError, match=says):
        publish(Publication(run, REPO, validated=validated(tmp_path / 'v', run, **values)), output=tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


NESTED = '{"attack": ' + '[' * 500 + ']' * 500 + '}'


@pytest.mark.parametrize(
    'text',
    [
        '',
        'top-1 3',
        '{"status": ',
        None,
        NESTED,
        '{"a": ' * 100_000,
        '{"checkpoint_sha256": ["a"]}',
        '{"checkpoint_sha256": {}}',
    ],
)
def test_a_file_without_a_record_of_validate(make_run, tmp_path, text):
    if text is not None:
        (tmp_path / 'v').write_text(text)
    with pytest.raises(HubError, match=r'--validated .* cannot be used.*validate\.py --checkpoint RUN --robust'):
        publish(Publication(make_run(), REPO, validated=tmp_path / 'v'), output=tmp_path / 'out')


@pytest.mark.parametrize('repo_id', ['name', 'a/b/c', 'me/', '/x', 'me/na me', 'me/x--y', '', 'me/x.git', 'me/.x'])
def test_what_is_not_a_repo_id(repo_id):
    with pytest.raises(HubError, match=r'not a repo id.*Use ORG/NAME'):
        check_repo_id(repo_id)


def test_an_accuracy_that_is_not_reproduced(make_run, tmp_path):
    with pytest.raises(CheckpointError, match=r'91.75% on test.*50.00% on 400'):
        publish(Publication(make_run(), REPO), output=tmp_path / 'out', evaluate=lambda model, run: (50.0, 400))
    with pytest.raises(CheckpointError, match=r'91.75% on test.*99.50% on 400'):  # too good is not that either
        publish(Publication(make_run(), REPO), output=tmp_path / 'out', evaluate=lambda model, run: (99.5, 400))
    assert not (tmp_path / 'out').exists()
    record = publish(Publication(make_run(), REPO), output=tmp_path / 'out', evaluate=lambda model, run: (90.5, 400))
    assert record['reproduced_on'] == 400
    with pytest.raises(CheckpointError):
        check_accuracy(90.0, math.nan, 100, 100, 'test')


def test_tolerance_against_samples_drawn():
    """Of ten thousand labels with 90% right, samples without replacement stay inside; another accuracy does not."""
    draw = random.Random(0)
    right = [1] * 9000 + [0] * 1000
    for count in (50, 1000, 9000):
        allowed = tolerance(90.0, count, 10000)
        samples = [100 * sum(draw.sample(right, count)) / count for _ in range(50)]
        assert all(abs(sample - 90.0) <= allowed for sample in samples)
    assert tolerance(90.0, 10000, 10000) == pytest.approx(0.1)  # the whole split: a thousandth
    assert tolerance(90.0, 200, 200) == pytest.approx(0.5)  # one image
    assert tolerance(90.0, 1000, 10000) < 4.1
    assert tolerance(100.0, 100, None) > 1  # a perfect record may meet an image that is not


@pytest.mark.parametrize('val_split', [None, 'test'])
def test_sample_accuracy_counts_what_the_record_counts(make_run, val_split):
    """On the digits: all of the validation split, against the same computed here."""
    folder = make_run(dataset='digits', test_top1=None, test_split=None, val_images=360, val_split=val_split)
    (folder / 'args.yaml').write_text(
        yaml.safe_dump(
            {'dataset': 'digits', 'data_dir': '', 'train_split': 'train', 'val_split': 'validation', 'batch_size': 64}
        )
    )
    run = read_run(folder)
    model = load_model(run)
    cfg = timm.data.resolve_model_data_config(model)
    with torch.no_grad():
        right = [(model(x).argmax(1) == y) for x, y in create_eval_loader(DataConfig('digits'), model_config=cfg)]
    expected = 100 * torch.cat(right).double().mean().item()
    assert sample_accuracy(model, run, 10_000) == (pytest.approx(expected), 360)
    assert sample_accuracy(model, run, 50)[1] == 50
    assert sample_accuracy(model, run, 0) is None


@pytest.mark.parametrize('on_test', [True, False])
def test_the_images_that_a_sample_takes(make_run, monkeypatch, on_test):
    """Of the test split if there is one, otherwise of the images that the run's seed held out; not the first ones."""
    scores = {} if on_test else dict(test_top1=None, test_split=None)
    folder = make_run(dataset='digits', seed=5, val_split='0.2 of train', **scores)
    options = {'dataset': 'digits', 'data_dir': '', 'train_split': 'train', 'val_split': 'validation'}
    (folder / 'args.yaml').write_text(yaml.safe_dump({**options, 'val_fraction': 0.2, 'batch_size': 64}))
    sampled = []
    monkeypatch.setattr(verify, '_count_correct', lambda model, loader: sampled.append(loader.subset) or 0)
    run = read_run(folder)
    assert sample_accuracy(load_model(run), run, 50) == (0.0, 50)

    (subset,) = sampled
    everything = torch.arange(360) if on_test else random_split(1437, 0.2, 5)[1]
    assert subset.source.split == ('test' if on_test else 'train')
    assert set(subset.indices.tolist()) <= set(everything.tolist())
    assert not torch.equal(subset.indices, everything[:50])


@pytest.mark.parametrize(
    'data',
    [
        {'dataset': 'hfds/uoft-cs/cifar10', 'data_dir': '{tmp}'},
        {'dataset': 'torch/cifar10', 'data_dir': '{tmp}'},
        {'dataset': '', 'data_dir': '{tmp}/none'},
        {},
    ],
)
def test_data_that_is_not_on_this_machine_is_not_downloaded(make_run, tmp_path, data):
    folder = make_run()
    values = {key: value.format(tmp=tmp_path) for key, value in data.items()}
    split = {'val_split': 'test', 'dataset_download': True} if data else {}
    (folder / 'args.yaml').write_text(yaml.safe_dump({**values, **split}))
    run = read_run(folder)
    assert sample_accuracy(load_model(run), run, 10) is None


def test_shipping(make_run, tmp_path):
    run = make_run()
    (tmp_path / 'manifest.json').write_text('[]')
    row, _ = shipping.ship(run, 'resnet20s.shipped', root=tmp_path)
    assert row.precision == 'bf16'
    assert zoo.load_manifest(tmp_path / 'manifest.json') == {'resnet20s.shipped': row}
    folder = zoo.fetch('resnet20s.shipped', row, root=tmp_path)
    state = load_file(folder / 'model.safetensors')
    assert all(torch.equal(value, state[key]) for key, value in load_file(run / 'model_best.safetensors').items())
    zoo.save_manifest([dataclasses.replace(row, repo_id='me/x')], tmp_path / 'manifest.json')
    assert shipping.ship(run, 'resnet20s.shipped', root=tmp_path)[0].repo_id == 'me/x'  # the same weights
    weights = run / 'model_best.safetensors'
    save_file({key: value + 1 for key, value in load_file(weights).items()}, weights)
    assert shipping.ship(run, 'resnet20s.shipped', root=tmp_path)[0].repo_id is None
    again, _ = shipping.ship(make_run(test_top1=50.0, mixed_precision='no'), 'resnet20s.shipped', root=tmp_path)
    assert (again.top1, again.precision) == (50.0, None)
    assert len(zoo.load_manifest(tmp_path / 'manifest.json')) == 1


def test_what_cannot_be_shipped_changes_nothing(make_run, tmp_path, monkeypatch):
    (tmp_path / 'manifest.json').write_text('[]')
    for name, run in (('resnet20s', make_run()), ('other.tag', make_run()), ('resnet20s.x', make_run(status='no'))):
        with pytest.raises(AlfaError):
            shipping.ship(run, name, root=tmp_path)
    monkeypatch.setattr(shipping, 'LIMIT', 1000)
    with pytest.raises(HubError, match='publish them on the Hub'):
        shipping.ship(make_run(), 'resnet20s.x', root=tmp_path)
    assert (tmp_path / 'manifest.json').read_text() == '[]'
    assert not (tmp_path / 'files').exists()


@pytest.mark.parametrize('at', ['copy_weights', 'save_manifest'])
def test_a_full_disk_while_shipping_changes_nothing(make_run, tmp_path, monkeypatch, at):
    (tmp_path / 'manifest.json').write_text('[]')
    shipping.ship(make_run(), 'resnet20s.x', root=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    other = make_run(test_top1=50.0)
    save_file(
        {key: value + 1 for key, value in load_file(other / 'model_best.safetensors').items()},
        other / 'model_best.safetensors',
    )
    before |= {path: path.read_bytes() for path in other.iterdir()}

    def full(source, target):
        target.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(shipping, at, full)
    with pytest.raises(HubError, match=r'cannot be written: .*No space left on device\. Nothing was changed'):
        shipping.ship(other, 'resnet20s.x', root=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before


def test_shipping_says_how_to_fix_weights_without_their_row(make_run, tmp_path, monkeypatch):
    (tmp_path / 'manifest.json').write_text('[]')
    replace = os.replace

    def only_weights(source, target):
        if target.name == 'manifest.json':
            raise OSError(5, 'Input/output error')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', only_weights)
    with pytest.raises(
        HubError, match='weights are in place, but their row is missing or that of other weights: ship them again'
    ):
        shipping.ship(make_run(), 'resnet20s.x', root=tmp_path)
    monkeypatch.setattr(os, 'replace', replace)
    shipping.ship(make_run(), 'resnet20s.x', root=tmp_path)
    assert [row['name'] for row in json.loads((tmp_path / 'manifest.json').read_text())] == ['resnet20s.x']


def test_persist_gives_up_at_once_on_a_lasting_error():
    calls = []

    def fail(error):
        calls.append(error)
        raise error

    with pytest.raises(KeyError):
        retry(lambda: fail(KeyError('x')), waits=(0, 0))
    assert len(calls) == 1
    busy = json.JSONDecodeError('an error page', '', 0)
    assert is_transient(busy)
    with pytest.raises(json.JSONDecodeError):
        retry(lambda: fail(busy), waits=(0, 0))
    assert len(calls) == 4
    assert retry(lambda: fail(busy), waits=(0, 0), done=lambda: 'there') == 'there'
    assert len(calls) == 5
