"""No model argument that a stranger wrote reaches timm's factory: one exploit for each way in."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from .conftest import ROOT, load, loopback

SCRIPT = """
import importlib.util, sys
from timm_alfa.errors import AlfaError
sys.argv = {argv!r}
spec = importlib.util.spec_from_file_location('script', {script!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
try:
    module.main()
    result = 'it ran'
except AlfaError as error:
    result = str(error)
"""


def recipe(path, exploit, **options):
    """A YAML of options with the exploit in it."""
    path.write_text(
        yaml.safe_dump(
            dict(model='resnet20s', pretrained=True, dataset='digits', model_kwargs=exploit.arguments, **options)
        )
    )
    return path


def assert_refused(message, exploit, *parts):
    assert exploit.planted == []
    for part in ("'pretrained_cfg_overlay'", "'cache_dir'", *map(str, parts)):
        assert part in message, message


@pytest.mark.parametrize('flags', [(), ('--dry-run',)])
def test_train_config(refused, exploit, tmp_path, flags):
    file = recipe(tmp_path / 'recipe.yaml', exploit)
    assert_refused(refused('train.py', '--config', file, *flags), exploit, file)
    assert not (tmp_path / 'output').exists()


def test_train_resume(refused, exploit, tmp_path):
    folder = tmp_path / 'handed_over'
    folder.mkdir()
    file = recipe(folder / 'args.yaml', exploit)
    assert_refused(refused('train.py', '--resume', folder), exploit, file)
    assert [path.name for path in folder.iterdir()] == ['args.yaml']


def test_train_local_dir(refused, exploit, tmp_path):
    folder = tmp_path / 'handed_over'
    folder.mkdir()
    (folder / 'config.json').write_text(exploit.config())
    message = refused('train.py', '--model', f'local-dir:{folder}', '--pretrained')
    assert_refused(message, exploit, folder / 'config.json')


def test_validate_config(refused, exploit, tmp_path):
    file = recipe(tmp_path / 'recipe.yaml', exploit)
    assert_refused(refused('validate.py', '--config', file), exploit, file)


def test_validate_checkpoint_folder_reads_no_other_file(refused, make_run, tmp_path):
    run = make_run()
    other = shutil.copyfile(run / 'model_best.safetensors', tmp_path / 'other.safetensors')
    config = json.loads((run / 'config.json').read_text())
    (run / 'config.json').write_text(json.dumps({**config, 'model_args': {'checkpoint_path': str(other)}}))
    message = refused('validate.py', '--checkpoint', run, '--dataset', 'digits')
    assert "'checkpoint_path'" in message and str(run / 'config.json') in message


@pytest.fixture
def upload(hub, make_run):
    """Puts a repo on the Hub with the weights of resnet20s and the given files next to them."""

    def call(repo, **files):
        weights = (make_run() / 'model_best.safetensors').read_bytes()
        contents = {'model.safetensors': weights, **files}
        hub.repos[repo] = loopback.Repo(False)
        hub.repos[repo].add('main', {name: (loopback.git_hash(data), data) for name, data in contents.items()})

    return call


@pytest.mark.parametrize(
    ('repo', 'argv'),
    [
        ('me/a', ['validate.py', '--checkpoint', 'hf-hub:me/a', '--dataset', 'digits']),
        ('me/b', ['validate.py', '--model', 'hf-hub:me/b', '--pretrained', '--dataset', 'digits']),
        ('me/c', ['train.py', '--model', 'hf-hub:me/c', '--pretrained', '--dry-run']),
    ],
)
def test_hub_repo(client, upload, exploit, repo, argv):
    upload(repo, **{'config.json': exploit.config().encode()})
    message = client(SCRIPT.format(argv=argv, script=str(ROOT / argv[0])))
    assert_refused(message, exploit, f"config.json of 'hf-hub:{repo}'")


def test_hub_repo_with_another_weights_file(client, upload, exploit):
    exploit.arguments = {}
    config = exploit.config(hf_hub_filename='other.npz', custom_load='hf').encode()
    upload('me/gift', **{'config.json': config, 'other.npz': b"a stranger's format"})
    argv = ['validate.py', '--checkpoint', 'hf-hub:me/gift', '--dataset', 'digits']
    message = client(SCRIPT.format(argv=argv, script=str(ROOT / 'validate.py')))
    assert "'hf_hub_filename'" in message
    assert not any('other.npz' in path for _, path in client.hub.log)


def test_hub_repo_with_a_pickle_that_runs_code(client, hub, exploit):
    class Payload:
        def __reduce__(self):
            return Path.touch, (exploit.target / 'run',)

    exploit.arguments = {}
    files = {'config.json': exploit.config().encode(), 'pytorch_model.bin': pickle.dumps(Payload())}
    hub.repos['me/pickle'] = loopback.Repo(False)
    hub.repos['me/pickle'].add('main', {name: (loopback.git_hash(data), data) for name, data in files.items()})
    argv = ['validate.py', '--checkpoint', 'hf-hub:me/pickle', '--dataset', 'digits']
    assert 'weights_only' in client(SCRIPT.format(argv=argv, script=str(ROOT / 'validate.py')))
    assert exploit.planted == []


def test_loading_by_name(client, upload, exploit):
    upload('me/resnet20s.alfa_c10', **{'config.json': exploit.config().encode(), 'sitecustomize.py': b'x'})
    assert (
        client(
            "import timm; m = timm.create_model('resnet20s.alfa_c10', pretrained=True); result = m.num_classes",
            TIMM_ALFA_HUB_ORG='me',
        )
        == 10
    )
    assert exploit.planted == []
    assert {path.rsplit('/', 1)[-1] for method, path in client.hub.log if method == 'GET'} == {'model.safetensors'}


@pytest.mark.parametrize('where', ['model_args', 'pretrained_cfg'])
def test_publish(make_run, exploit, where, tmp_path, capsys):
    run = make_run()
    config = json.loads((run / 'config.json').read_text())
    planted = {'model_args': exploit.arguments, 'pretrained_cfg': {'hf_hub_filename': 'other.npz', 'custom_load': 'hf'}}
    config[where] = {**config.get(where, {}), **planted[where]}
    (run / 'config.json').write_text(json.dumps(config))
    argv = [str(run), '--repo-id', 'me/resnet20s.alfa_c10', '--dry-run', '--output', str(tmp_path / 'out')]
    assert load(ROOT / 'hub' / 'publish.py').main(argv) == 1
    message = capsys.readouterr().err
    assert exploit.planted == [] and not (tmp_path / 'out').exists()
    for key in planted[where].keys() - {'custom_load'}:
        assert f"'{key}'" in message and str(run / 'config.json') in message


def test_a_config_that_changes_between_two_reads(exploit, make_run, monkeypatch):
    from timm_alfa.errors import ConfigError
    from timm_alfa.models import factory

    run = make_run()
    harmless = json.loads((run / 'config.json').read_text())
    monkeypatch.setattr(
        factory, 'load_model_config_from_path', lambda place: (harmless['pretrained_cfg'], harmless['architecture'], {})
    )
    (run / 'config.json').write_text(exploit.config())
    with pytest.raises(ConfigError) as caught:
        factory.create_model(f'local-dir:{run}', {}, pretrained=True)
    assert_refused(str(caught.value), exploit)


def test_weights_come_from_the_folder_alone(make_run, exploit):
    from timm_alfa.models.factory import create_model

    run = make_run()
    save_file(load_file(run / 'model_best.safetensors'), run / 'model.safetensors')
    exploit.arguments = {}
    (run / 'config.json').write_text(
        exploit.config(
            url='http://127.0.0.1:1/x', file='/etc/passwd', hf_hub_id='me/other', source='url', custom_load=True
        )
    )
    cfg = create_model(f'local-dir:{run}', {}, pretrained=True).pretrained_cfg
    assert (cfg['file'], cfg['source'], cfg['custom_load']) == (str(run), 'local-dir', False)
    assert not {'url', 'hf_hub_id'} & cfg.keys()


def test_a_manifest_row_cannot_name_other_weights(tmp_path):
    from timm_alfa.errors import HubError
    from timm_alfa.zoo import load_manifest

    row = dict(
        name='resnet20s.x',
        sha256='0' * 64,
        size=1,
        top1=1.0,
        split='test',
        file='weights',
        pretrained_cfg={'url': 'http://127.0.0.1:1/x'},
    )
    (tmp_path / 'manifest.json').write_text(json.dumps([row]))
    with pytest.raises(HubError, match='pretrained_cfg has unknown url'):
        load_manifest(tmp_path / 'manifest.json')
