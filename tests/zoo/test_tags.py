"""Names registered with timm, and what they leave alone."""

import copy
import json
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import _registry
from timm.models._factory import resolve_model_input_args

import timm_alfa.zoo as zoo
from timm_alfa.errors import AlfaWarning, HubError
from timm_alfa.utils.files import sha256_of
from timm_alfa.zoo import timm_registry
from timm_alfa.zoo.download import WEIGHTS, PublishedWeights
from timm_alfa.zoo.manifest import load_manifest
from timm_alfa.zoo.tags import DATASETS, TAGS, find_dataset, pretrained_cfg

PROMISED = {
    *(f'resnet{n}.alfa_in1k' for n in (18, 50, 101, 152)),
    'resnet50.l_alfa_in1k',
    'efficientnet_b0.alfa_in1k',
    *(
        f'resnet{n}s.{method}_{data}'
        for n in (20, 56)
        for method in ('standard', 'alfa', 'l_alfa')
        for data in ('c10', 'c100')
    ),
    *(f'resnet{n}_cifar.alfa_c10' for n in (18, 50, 101)),
}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Restores timm's registry after each test, and hides TIMM_ALFA_HUB_ORG."""
    monkeypatch.delenv('TIMM_ALFA_HUB_ORG', raising=False)
    tables = [(getattr(_registry, name), copy.deepcopy(getattr(_registry, name))) for name in timm_registry._PRIVATE]
    rows = dict(zoo._registered)
    yield
    for table, before in tables:
        table.clear()
        table.update(before)
    zoo._registered.clear()
    zoo._registered.update(rows)


def ship(root, name: str, **row) -> dict:
    """Write weights into a package folder, and their manifest; returns the state."""
    folder = root / 'files' / name
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    state = timm.create_model(name.partition('.')[0], num_classes=10).state_dict()
    save_file(state, folder / WEIGHTS)
    values = {
        'name': name,
        'sha256': sha256_of(folder / WEIGHTS),
        'size': (folder / WEIGHTS).stat().st_size,
        'top1': 90.0,
        'split': 'test',
        'file': f'files/{name}',
        **row,
    }
    (root / 'manifest.json').write_text(json.dumps([values]))
    return state


def test_every_promised_name_is_there_and_no_other():
    assert set(TAGS) == PROMISED
    shown = timm.list_models(['*.alfa_*', '*.l_alfa_*', '*.standard_*'], include_tags=True)
    assert set(shown) == PROMISED


def test_timm_keeps_its_own_names(tmp_path):
    """In a process that has not registered anything yet: before and after."""
    code = """if True:
        import timm
        state = lambda: (timm.list_models(), timm.list_pretrained(),
                         {n: timm.get_pretrained_cfg(n) for n in timm.list_models(include_tags=True)})
        models, pretrained, cfgs = state()
        entry = timm.model_entrypoint('resnet50')
        import timm_alfa
        own = set(timm.list_models(module='resnet_cifar'))
        after = state()
        assert len(own) == 7 and set(after[0]) == {*models, *own}
        assert set(after[1]) - set(pretrained) <= set(timm_alfa.zoo.TAGS) and set(pretrained) <= set(after[1])
        assert {n: after[2][n] for n in cfgs} == cfgs
        assert set(after[2]) - set(cfgs) == {*timm_alfa.zoo.TAGS, *own}, set(after[2]) - set(cfgs)
        assert timm.model_entrypoint('resnet50') is entry
        assert timm.get_pretrained_cfg('resnet50').tag == cfgs['resnet50.a1_in1k'].tag == 'a1_in1k'
        assert timm.create_model('resnet50.a1_in1k').pretrained_cfg['hf_hub_id'] == 'timm/resnet50.a1_in1k'
    """
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('name', sorted(PROMISED - load_manifest().keys()))
def test_a_name_without_weights_builds_its_model_and_says_how_to_make_them(name):
    tag = TAGS[name]
    cfg = timm.get_pretrained_cfg(name)
    assert (cfg.num_classes, cfg.tag) == (tag.dataset.num_classes, name.partition('.')[2])
    assert not cfg.has_weights
    assert not timm.is_model_pretrained(name)
    with pytest.raises(HubError) as error:
        PublishedWeights(name).__fspath__()
    for part in (name, f'--model {tag.model} --task {tag.method}', f'--repo-id ORG/{name}', 'TIMM_ALFA_HUB_ORG=ORG'):
        assert part in str(error.value)
    assert '\n' not in str(error.value)


def test_create_model_without_weights_raises_our_error_and_pretrained_false_works():
    with pytest.raises(HubError, match=r"no weights are published for 'resnet20s.alfa_c100'"):
        timm.create_model('resnet20s.alfa_c100', pretrained=True)
    with pytest.raises(HubError, match=r"'resnet18.alfa_in1k'"):
        timm.create_model('resnet18', pretrained=True, pretrained_cfg='alfa_in1k', num_classes=3)
    assert timm.create_model('resnet20s.alfa_c100').num_classes == 100


def test_shipped_weights_load_offline_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    state = ship(tmp_path, 'resnet20s.alfa_c10', pretrained_cfg={'mean': [0.5, 0.5, 0.5], 'num_classes': 10})
    zoo.register_tags(tmp_path / 'manifest.json')
    model = timm.create_model('resnet20s.alfa_c10', pretrained=True)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert timm.data.resolve_model_data_config(model)['mean'] == (0.5, 0.5, 0.5)
    assert 'resnet20s.alfa_c10' in timm.list_pretrained()
    assert zoo.list_published() == ['resnet20s.alfa_c10']
    head = timm.create_model('resnet20s.alfa_c10', pretrained=True, num_classes=3)
    assert head.fc.out_features == 3
    assert torch.equal(head.conv1.weight, state['conv1.weight'])
    features = timm.create_model('resnet20s.alfa_c10', pretrained=True, features_only=True)
    assert torch.equal(features.conv1.weight, state['conv1.weight'])
    resolved = resolve_model_input_args('resnet20s.alfa_c10', in_chans=3)  # how timm's scripts build a model
    assert torch.equal(timm.create_model(**resolved, pretrained=True).fc.weight, state['fc.weight'])
    gray = timm.create_model('resnet20s.alfa_c10', pretrained=True, in_chans=1)
    assert torch.allclose(gray.conv1.weight, state['conv1.weight'].sum(1, keepdim=True))


def test_a_model_of_ours_can_be_saved_in_timms_form(tmp_path):
    """Its pretrained_cfg holds an object; timm drops a source when it writes."""
    ship(tmp_path, 'resnet20s.alfa_c10')
    zoo.register_tags(tmp_path / 'manifest.json')
    model = timm.create_model('resnet20s.alfa_c10', pretrained=True)
    timm.models.save_for_hf(model, tmp_path / 'saved', safe_serialization=True)
    again = timm.create_model(f'local-dir:{tmp_path / "saved"}', pretrained=True)
    assert torch.equal(again.fc.weight, model.fc.weight)
    torch.save(model, tmp_path / 'whole.pt')
    assert torch.equal(torch.load(tmp_path / 'whole.pt', weights_only=False).fc.weight, model.fc.weight)


def test_a_changed_file_of_the_package_is_refused(tmp_path):
    ship(tmp_path, 'resnet20s.alfa_c10')
    path = tmp_path / 'files' / 'resnet20s.alfa_c10' / WEIGHTS
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    zoo.register_tags(tmp_path / 'manifest.json')
    with pytest.raises(HubError, match='not what was published'):
        timm.create_model('resnet20s.alfa_c10', pretrained=True)
    path.unlink()
    with pytest.raises(HubError, match='reinstall'):
        timm.create_model('resnet20s.alfa_c10', pretrained=True)


def test_registering_again_follows_the_manifest(tmp_path):
    ship(tmp_path, 'test_resnet.mine')
    zoo.register_tags(tmp_path / 'manifest.json')
    assert timm.is_model_pretrained('test_resnet.mine')
    with_tags = list(_registry._model_with_tags['test_resnet'])
    (tmp_path / 'manifest.json').write_text('[]')
    zoo.register_tags(tmp_path / 'manifest.json')
    assert not timm.is_model_pretrained('test_resnet.mine')
    assert _registry._model_with_tags['test_resnet'] == with_tags  # no name twice
    with pytest.raises(HubError):
        timm.create_model('test_resnet.mine', pretrained=True)


@pytest.mark.parametrize('version', ['1.0.30', '1.1.0', '2.0'])
def test_another_timm_gets_a_warning_and_no_tags(monkeypatch, version):
    monkeypatch.setattr(timm, '__version__', version)
    with pytest.warns(AlfaWarning, match='hf-hub:'):
        assert not timm_registry.add_tags({'resnet50.new': pretrained_cfg('resnet50.new')}, published=['resnet50.new'])
    assert 'resnet50.new' not in timm.list_models(include_tags=True)


def test_a_registry_of_another_shape_gets_a_warning(monkeypatch):
    monkeypatch.delattr(_registry, '_model_with_tags')
    with pytest.warns(AlfaWarning):
        assert not timm_registry.add_tags({}, published=[])


def test_known_timm_versions():
    assert timm_registry.timm_is_known()


def test_a_cfg_takes_its_architectures_structure_and_no_source():
    base, ours = timm.get_pretrained_cfg('resnet50'), pretrained_cfg('resnet50.alfa_in1k')
    assert (ours.first_conv, ours.classifier, ours.pool_size) == (base.first_conv, base.classifier, base.pool_size)
    assert (ours.url, ours.hf_hub_id, ours.test_input_size, ours.paper_ids) == (None,) * 4
    with pytest.raises(RuntimeError):
        pretrained_cfg('no_such_model.alfa_c10')


@pytest.mark.parametrize(
    ('name', 'classes', 'key'),
    [
        ('hfds/uoft-cs/cifar10', 10, 'c10'),
        ('torch/cifar100', 100, 'c100'),
        ('hfds//data/cifar10/', 10, 'c10'),
        ('/data/imagenet', 1000, 'in1k'),
        ('hfds/ILSVRC/imagenet-1k', 1000, 'in1k'),
        ('digits', 10, 'digits'),
        ('cifar10', 7, None),
        ('hfds/me/other', 10, None),
        (None, 10, None),
    ],
)
def test_find_dataset(name, classes, key):
    assert find_dataset(name, classes) is (DATASETS[key] if key else None)
