"""manifest.json: what is read, what is refused, what is written."""

import json

import pytest
import timm

import timm_alfa.zoo as zoo
from timm_alfa.errors import HubError
from timm_alfa.zoo.manifest import MANIFEST, Row, cfg_of, load_manifest, save_manifest

ROW = {'name': 'resnet20s.alfa_c10', 'sha256': 'a' * 64, 'size': 5, 'top1': 90.0, 'split': 'test', 'repo_id': 'me/x'}


def write(path, rows):
    (path / 'm.json').write_text(json.dumps(rows))
    return path / 'm.json'


def test_the_projects_own_manifest_is_sound():
    """Walks what is published: names known, shipped files there and verified when loaded."""
    for name, row in load_manifest(MANIFEST).items():
        assert timm.is_model(name)
        assert 0 < row.top1 < 100
        if row.file:
            timm.create_model(name, pretrained=True)


def test_save_and_load_agree(tmp_path):
    rows = [Row(**ROW), Row(**{**ROW, 'name': 'a.b', 'file': 'files/a.b', 'pretrained_cfg': {'num_classes': 3}})]
    save_manifest(rows, tmp_path / 'm.json')
    assert list(load_manifest(tmp_path / 'm.json').values()) == rows[::-1]
    assert 'null' not in (tmp_path / 'm.json').read_text()


@pytest.mark.parametrize(
    ('rows', 'says'),
    [
        ([{**ROW, 'sha256': 'abc'}], '64 hexadecimal'),
        ([{key: value for key, value in ROW.items() if key not in ('size', 'top1')}], 'lacks size, top1'),
        ([{**ROW, 'sha': 1}], 'unknown sha'),
        ([{**ROW, 'repo_id': None}], 'neither repo_id nor file'),
        ([ROW, ROW], 'twice'),
        (['x'], 'not a row'),
        ([5], 'not a row'),
        ({'a': 1}, 'not a manifest'),
        (5, 'not a manifest'),
        (None, 'not a manifest'),
        ([{**ROW, 'name': ['x']}], 'name of another type'),
        ([{**ROW, 'name': {}}, {**ROW, 'name': None}], 'name of another type'),
        ([{**ROW, 'size': '5', 'top1': True}], 'size, top1 of another type'),
        ([{**ROW, 'pretrained_cfg': [1]}], 'pretrained_cfg of another type'),
        ([{**ROW, 'repo_id': 3}], 'repo_id of another type'),
        ([{**ROW, 'sha256': None}], 'sha256 of another type'),
    ],
)
def test_wrong_rows_are_named(tmp_path, rows, says):
    with pytest.raises(HubError, match=says):
        load_manifest(write(tmp_path, rows))


def test_all_errors_at_once(tmp_path):
    with pytest.raises(HubError, match=r'64 hexadecimal.*twice'):
        load_manifest(write(tmp_path, [{**ROW, 'sha256': ''}, ROW]))


def test_a_file_that_is_not_a_manifest(tmp_path):
    (tmp_path / 'm.json').write_text('{')
    with pytest.raises(HubError, match='not a manifest'):
        load_manifest(tmp_path / 'm.json')
    with pytest.raises(HubError, match='not a manifest'):
        load_manifest(tmp_path / 'none.json')


@pytest.mark.parametrize('name', ['no_such_model.alfa_c10', 'resnet20s'])
def test_a_name_that_timm_cannot_build_is_refused_before_anything_is_registered(tmp_path, name):
    before = timm.list_models(include_tags=True)
    with pytest.raises(HubError, match=r'ARCHITECTURE\.TAG'):
        zoo.register_tags(write(tmp_path, [{**ROW, 'name': name}]))
    assert timm.list_models(include_tags=True) == before


def test_cfg_of_keeps_what_data_needs():
    config = {'num_classes': 7, 'pretrained_cfg': {'mean': [0.1], 'tag': 'x', 'url': 'y'}}
    assert cfg_of(config) == {'mean': [0.1], 'num_classes': 7}
    assert cfg_of({**config, 'label_names': ['a', 'b']})['label_names'] == ['a', 'b']
    assert 'label_names' not in cfg_of({**config, 'label_names': ['a'] * 1000})
