"""predict: what validate says of the same images, without labels; a broken image stops nothing."""

import csv
import io

import pytest
import timm
from helpers.pictures import picture
from timm.models import save_for_hf

from timm_alfa.commands import predict as command
from timm_alfa.errors import ConfigError
from timm_alfa.training import validate
from timm_alfa.training.options import validate_args
from timm_alfa.training.options.predict_args import parse_args
from timm_alfa.training.predict import class_names

NAMES = ['ant', 'bee', 'cat']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp('predict') / 'run'
    model = timm.create_model('test_resnet', num_classes=3, pretrained_cfg_overlay=dict(crop_pct=0.8))
    config = dict(label_names=NAMES)
    save_for_hf(model, str(folder), model_config=config, safe_serialization=True)
    return str(folder)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """A folder per class, with images of different sizes."""
    root = tmp_path_factory.mktemp('photos')
    for index in range(7):
        folder = root / 'val' / NAMES[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        picture(index, size=(170 + 10 * index, 200)).save(folder / f'{index}.png')
    (root / 'train').symlink_to('val')
    return root


def rows(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_answers_are_those_of_validate(checkpoint, photos, tmp_path, capsys):
    data = ['--data-dir', str(photos), '--split', 'val', '--workers', '0']
    scored = validate_args.parse_args(['--checkpoint', checkpoint, *data, '--predictions', str(tmp_path / 'v.csv')])
    validate.validate(scored, validate.prepare(scored))
    words = [str(photos / 'val'), '--checkpoint', checkpoint, '-b', '3', '-j', '0', '-k', '2']
    assert command.main([*words, '--output', str(tmp_path / 'p.csv')]) == 0

    found = rows(tmp_path / 'p.csv')
    assert list(found[0]) == ['image', 'prediction', 'probability', 'prediction_2', 'probability_2']
    for row, expected in zip(found, rows(tmp_path / 'v.csv'), strict=True):
        assert (row['image'], row['prediction']) == (expected['image'], expected['prediction'])
        assert float(row['probability']) == pytest.approx(float(expected['probability']), rel=1e-5)
        assert float(row['probability']) >= float(row['probability_2'])
    lines = capsys.readouterr().out.splitlines()
    first = found[0]
    assert lines[0] == (
        f'{photos}/val/ant/0.png: {first["prediction"]} {float(first["probability"]):.1%}; '
        f'{first["prediction_2"]} {float(first["probability_2"]):.1%}'
    )
    assert len(lines) == 7


def test_a_broken_image_is_named_and_the_others_go_on(checkpoint, photos, tmp_path, capsys, monkeypatch):
    good = photos / 'val' / 'bee' / '1.png'
    broken = tmp_path / 'broken.png'
    broken.write_bytes(good.read_bytes()[:500])
    monkeypatch.setattr('sys.stdin', io.StringIO(f'{broken}\n\n{good}\n'))
    assert command.main(['--checkpoint', checkpoint, '-']) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f'{good}: ') and shown.out.count('%') == 3
    assert f"error: cannot read image '{broken}': " in shown.err
    assert '1 of 2 images could not be read' in shown.err

    assert command.main(['--checkpoint', checkpoint, str(broken), '--output', str(tmp_path / 'p.parquet')]) == 1
    assert capsys.readouterr().out == '' and (tmp_path / 'p.parquet').is_file()


def test_images_may_stand_on_both_sides_of_options():
    assert parse_args(['a.png', '--checkpoint', 'run', 'b, c.png']).predict.images == ('a.png', 'b, c.png')


def test_errors():
    with pytest.raises(ConfigError) as error:
        parse_args(['--top-k', '0', '--chekpoint', 'x'])
    assert len(error.value.errors) == 3 and "Did you mean '--checkpoint'" in str(error.value)
    with pytest.raises(ConfigError, match='no images are named'):
        parse_args(['--checkpoint', 'run'])


def test_weights_of_the_package_name_their_classes():
    model = timm.create_model('resnet20s.alfa_c10', pretrained=True)
    assert class_names(model, published=True)[:2] == ['airplane', 'automobile']


def test_classes_without_names_are_numbers_unless_they_are_those_of_imagenet():
    model = timm.create_model('test_resnet', num_classes=1000)
    assert class_names(model, published=True)[0] == 'tench, Tinca tinca'
    assert class_names(model, published=False)[999] == '999'
