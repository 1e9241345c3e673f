"""Publishing and loading over HTTP: the real client, a Hub on loopback, and what goes wrong on the way."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from .conftest import Failed, loopback

Fault, READER = loopback.Fault, loopback.READER
REPO = 'me/resnet20s.alfa_c10'
PUBLISH = """
from timm_alfa.publishing.publish import Publication, publish
result = publish(Publication({run!r}, {repo!r}, revision={revision!r}), private={private}, exist_ok={exist_ok})
"""
PUSH = """
from pathlib import Path
from timm_alfa.publishing.push import push
sent = push(Path({folder!r}), {repo!r}, message='m', revision={revision!r}, exist_ok={exist_ok}, waits=(.02,) * 3)
result = sent.commit
"""
FOREVER = 99


@pytest.fixture
def publish(client, make_run):
    """Publishes the test's run (`publish.run`) or another; returns the record."""

    def call(repo=REPO, revision='main', private=False, exist_ok=False, run=None, **env):
        return client(
            PUBLISH.format(run=str(run or call.run), repo=repo, revision=revision, private=private, exist_ok=exist_ok),
            **env,
        )

    call.run = make_run()
    return call


@pytest.fixture
def send(client, tmp_path):
    """Sends a folder without the checks of a run; returns the commit."""
    folder = tmp_path / 'staged'
    folder.mkdir()
    save_file({'x': torch.arange(1000.0)}, folder / 'model.safetensors')
    (folder / 'README.md').write_text('---\nlicense: mit\nlibrary_name: timm\npipeline_tag: x\n---\n')

    def call(repo=REPO, revision='main', exist_ok=False, **env):
        return client(PUSH.format(folder=str(folder), repo=repo, revision=revision, exist_ok=exist_ok), **env)

    call.folder = folder
    return call


def load(client, name=None, **env):
    """The sum of a loaded model's parameters, which no other weights share."""
    name = name or f'hf-hub:{REPO}'
    return client(
        f'import timm; m = timm.create_model({name!r}, pretrained=True); '
        'result = [float(p.double().sum()) for p in m.state_dict().values()]',
        **env,
    )


def expected(run):
    state = load_file(run / 'model_best.safetensors')
    model = timm.create_model('resnet20s', num_classes=10)
    model.load_state_dict(state)
    return [float(p.double().sum()) for p in model.state_dict().values()]


def test_publish_then_load_by_name_and_by_repo(client, hub, publish):
    record = publish()
    files = hub.repos[REPO].commits[record['revision']]
    assert set(files) == {'.gitattributes', *record['files']}
    assert set(record['files']) >= {'README.md', 'config.json', 'model.safetensors', 'result.json', 'curves.png'}
    assert len(hub.repos[REPO].commits) == 2  # the repo's own, and one of ours
    assert not hub.repos[REPO].private
    config = json.loads(files['config.json'][1])
    assert config['pretrained_cfg']['tag'] == 'alfa_c10'
    assert len(config['label_names']) == config['num_classes'] == 10
    assert load(client) == expected(publish.run)
    assert load(client, 'resnet20s.alfa_c10', TIMM_ALFA_HUB_ORG='me') == expected(publish.run)
    assert hub.cdn_headers
    assert not any('authorization' in map(str.lower, headers) for headers in hub.cdn_headers)


def test_the_cards_snippets_run(client, hub, publish):
    record = publish()
    card = hub.repos[REPO].commits[record['revision']]['README.md'][1].decode()
    codes = re.findall(r'```python\n(.*?)```', card, re.S)
    assert len(codes) == 5
    for code in codes:
        if 'transformers' not in code:  # that has its own test
            client(code)
    for name in ('resnet20s.mine', 'plain'):  # a name that is not registered has an encoder in place of the name
        record = publish(f'me/{name}')
        codes = re.findall(
            r'```python\n(.*?)```', hub.repos[f'me/{name}'].commits[record['revision']]['README.md'][1].decode(), re.S
        )
        assert client(codes[2] + '\nresult = model(__import__("torch").zeros(1, 3, 32, 32)).shape[1]') == 64


def test_timm_alone_loads_an_architecture_of_timms(client, hub, publish, make_run):
    publish('me/test_resnet.alfa_x', run=make_run('test_resnet'))
    code = (
        "import sys, timm; m = timm.create_model('hf-hub:me/test_resnet.alfa_x', pretrained=True); "
        "assert 'timm_alfa' not in sys.modules; print(m.pretrained_cfg['tag'], m.num_classes)"
    )
    env = {
        **os.environ,
        'HF_ENDPOINT': hub.url,
        'HF_HUB_DISABLE_XET': '1',
        'HF_HUB_OFFLINE': '0',
        'HF_HOME': str(publish.run),
    }
    out = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.split() == ['alfa_x', '10']


def test_transformers_loads_it(client, hub, publish, make_run):
    pytest.importorskip('transformers', reason='loading a published model in transformers needs it')
    publish('me/test_resnet.alfa_y', run=make_run('test_resnet'))
    code = """
import PIL.Image, transformers
classifier = transformers.pipeline('image-classification', model='me/test_resnet.alfa_y')
result = [row['label'] for row in classifier(PIL.Image.new('RGB', (40, 40)), top_k=10)]
"""
    assert sorted(client(code)) == [f'class{index}' for index in range(10)]


def test_the_proposed_row_makes_the_name_load_what_was_published(client, hub, publish, tmp_path, make_run):
    row = publish()['manifest_row']
    (tmp_path / 'manifest.json').write_text(json.dumps([row]))
    hub.repos[REPO].add('main', {})  # what comes later does not matter: the row pins its commit
    code = f"""
import timm, timm_alfa.zoo as zoo
try:
    zoo.register_tags({str(tmp_path / 'manifest.json')!r})
    m = timm.create_model('resnet20s.alfa_c10', pretrained=True)
    assert m.pretrained_cfg['label_names'][3] == 'class3'
    result = [timm.list_pretrained('*.alfa*'), [float(p.double().sum()) for p in m.state_dict().values()]]
finally:
    zoo.register_tags()
"""
    names, sums = client(code)
    assert names == ['resnet20s.alfa_c10']
    assert sums == expected(publish.run)


@pytest.mark.parametrize('by', ['manifest', 'hub'])
def test_a_tampered_file_is_refused_and_does_not_stay_in_the_cache(client, hub, publish, tmp_path, by):
    repo = f'me/resnet20s.tampered_{by}'
    row = publish(repo)['manifest_row']
    (tmp_path / 'manifest.json').write_text(json.dumps([row]))
    code = f"""
import timm, timm_alfa.zoo as zoo
try:
    zoo.register_tags({str(tmp_path / 'manifest.json')!r})
    timm.create_model({row['name']!r}, pretrained=True)
finally:
    zoo.register_tags()
"""
    env = {'TIMM_ALFA_HUB_ORG': 'me'} if by == 'hub' else {}
    hub.faults.append(Fault('GET', '/cdn/', tamper=True))
    with pytest.raises(Failed, match=r'HubError: .*not what was published') as failed:
        client(code, **env)
    assert '\n' not in failed.value.message
    client(code, **env)


@pytest.mark.parametrize('fault', [{'status': 503}, {'status': 429}, {'cut': 'before'}])
def test_a_fault_while_loading(client, hub, publish, fault):
    repo = f'resnet20s.fault_{fault.get("status", "cut")}'
    publish(f'me/{repo}')
    code = f"""
from timm_alfa.zoo import download, fetch
before, download.WAITS = download.WAITS, NEW
try:
    fetch({repo!r}, org='me')
finally:
    download.WAITS = before
"""
    hub.faults.append(Fault('HEAD', '/resolve/', **fault, times=FOREVER))
    with pytest.raises(Failed, match=r'HubError: cannot load me/.*(out of order|fewer requests)') as failed:
        client(code.replace('NEW', '()'))
    assert '\n' not in failed.value.message
    hub.faults[0].times = 2
    client(code.replace('NEW', '(0, 0)'))
    assert hub.faults[0].times == 0


def test_a_broken_download_is_resumed(client, hub):
    data = os.urandom(25_000_000)  # the client keeps what it got by pieces of 10 MiB
    sha256 = hashlib.sha256(data).hexdigest()
    hub.blobs[sha256] = data
    hub.repos['me/large.x'] = loopback.Repo(False)
    hub.repos['me/large.x'].add('main', {'model.safetensors': (sha256, data)})
    hub.faults.append(Fault('GET', '/cdn/', cut='body'))
    client(f"""
from timm_alfa.zoo import Row, fetch
row = Row('large.x', {sha256!r}, {len(data)}, 1., 'test', repo_id='me/large.x')
result = str(fetch('large.x', row))
""")
    assert [headers.get('Range') for headers in hub.cdn_headers] == [None, f'bytes={10 * 2**20}-']


@pytest.mark.parametrize('name', ['../../../../escaped', '/{root}/escaped', '..\\..\\..\\..\\escaped', '.'])
def test_a_path_as_an_etag_writes_and_removes_nothing(client, hub, name):
    """The client makes a file's name in its cache of an etag."""
    root = Path(client('from huggingface_hub import constants; result = constants.HF_HUB_CACHE')).parents[1]
    victim = root / 'escaped'
    victim.write_text('mine')
    for repo, exists in (('me/resnet20s.etag_old', True), ('me/resnet20s.etag_new', False)):
        if not exists:
            victim.unlink()
        hub.repos[repo] = loopback.Repo(False)
        hub.repos[repo].add('main', {'model.safetensors': (name.format(root=root), b'theirs')})
        before = sorted(path for path in root.rglob('*') if 'hub' not in path.parts)
        with pytest.raises(Failed, match=r'HubError: cannot load me/.*which is not a file name: do not trust'):
            client(f"from timm_alfa.zoo import fetch; fetch({repo[3:]!r}, org='me')")
        assert sorted(path for path in root.rglob('*') if 'hub' not in path.parts) == before
        assert victim.exists() == exists
        assert not exists or victim.read_text() == 'mine'


def test_a_path_as_a_commit_writes_nothing(client, hub):
    """The client notes in its cache, by commit, that a file does not exist."""
    root = Path(client('from huggingface_hub import constants; result = constants.HF_HUB_CACHE')).parents[1]
    hub.repos['me/resnet20s.commit'] = loopback.Repo(False)
    hub.repos['me/resnet20s.commit'].add('main', {})
    headers = {'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': '../../../../no_exist'}
    hub.faults.append(Fault('HEAD', '/resolve/', status=404, headers=headers, times=FOREVER))
    with pytest.raises(Failed, match=r'which is not a file name: do not trust'):
        client("from timm_alfa.zoo import fetch; fetch('resnet20s.commit', org='me')")
    assert not (root / 'no_exist').exists()


def test_a_link_in_the_cache_that_leads_out_of_it_is_not_followed_to_remove_a_file(client, hub, publish, tmp_path):
    """Another user of a shared cache may have planted it; weights that do not match are removed from the cache."""
    row = publish('me/resnet20s.planted')['manifest_row']
    victim = tmp_path / 'victim'
    victim.write_text('mine')
    code = f"""
from pathlib import Path
from timm_alfa.zoo import Row, fetch
row = Row(**{row!r})
path = fetch(row.name, row) / 'model.safetensors'
path.unlink()
path.symlink_to({str(victim)!r})
result = str(path)
fetch(row.name, row)
"""
    with pytest.raises(Failed, match='not what was published'):
        client(code)
    assert victim.read_text() == 'mine'
    assert len(client(f"from timm_alfa.zoo import Row, fetch; result = str(fetch('x', Row(**{row!r})))")) > 0


def test_a_download_has_a_time_limit(client, hub, publish):
    """One byte every quarter of a second never runs into the client's own timeout, which is between two of them."""
    publish('me/resnet20s.slow')
    hub.faults.append(Fault('GET', '/cdn/', drip=0.25))
    code = "from timm_alfa.zoo import fetch; fetch('resnet20s.slow', org='me')"
    with pytest.raises(Failed, match=r'took longer than 1 seconds and was abandoned.*TIMM_ALFA_DOWNLOAD_TIMEOUT'):
        client(code, TIMM_ALFA_DOWNLOAD_TIMEOUT='1')
    client("import threading; [each.join(30) for each in threading.enumerate() if each.name == 'download']")
    with pytest.raises(Failed, match=r"TIMM_ALFA_DOWNLOAD_TIMEOUT is 'soon': set it to a number of seconds"):
        client(code, TIMM_ALFA_DOWNLOAD_TIMEOUT='soon')


def test_what_a_server_says_is_printable_and_redacted(hub, send):
    body = {
        'errors': [{'message': '\x1b[2J\x1b]0;evil\x07 rejected hf_abcdefghijklmnopqrstuvwxyz\u202e'}],
        'warnings': [],
    }
    hub.faults.append(
        Fault(
            'POST',
            '/validate-yaml',
            status=400,
            body=json.dumps(body).encode(),
            headers={'Content-Type': 'application/json'},
        )
    )
    with pytest.raises(Failed, match=r'rejected') as failed:
        send()
    assert failed.value.message.isprintable()
    assert r'\x1b[2J' in failed.value.message
    assert 'hf_abc' not in failed.value.message


def test_loading_a_private_repo(client, hub, publish):
    publish('me/resnet20s.alfa_c100_private', private=True)
    assert hub.repos['me/resnet20s.alfa_c100_private'].private
    fetch = "from timm_alfa.zoo import fetch; fetch('resnet20s.alfa_c100_private', org='me')"
    for token in (None, READER):
        with pytest.raises(Failed, match=r'HubError: .*is private.*hf auth login'):
            client(fetch, HF_TOKEN=token)
    client(fetch)


def test_loading_what_is_not_there_is_one_line_and_no_traceback_of_the_client(client, hub):
    with pytest.raises(Failed) as failed:
        load(client, 'resnet56s.alfa_c10', TIMM_ALFA_HUB_ORG='me')
    assert failed.value.error == 'HubError'
    assert 'me/resnet56s.alfa_c10 does not exist' in failed.value.message
    assert 'TIMM_ALFA_HUB_ORG' in failed.value.message
    assert '\n' not in failed.value.message
    assert 'httpx' not in failed.value.trace
    hub.repos['me/resnet56s.alfa_c100'] = loopback.Repo(False)
    hub.repos['me/resnet56s.alfa_c100'].add('main', {})
    with pytest.raises(Failed, match=r'has no such file'):
        load(client, 'resnet56s.alfa_c100', TIMM_ALFA_HUB_ORG='me')


def test_a_repo_that_exists(client, hub, publish):
    first = publish()
    with pytest.raises(Failed, match=r'already exists: add --exist-ok'):
        publish()
    with pytest.raises(Failed, match=r'is public: drop --private'):
        publish(exist_ok=True, private=True)
    assert len(hub.repos[REPO].commits) == 2
    assert publish(exist_ok=True)['revision'] == first['revision']  # nothing changed: no empty commit
    record = json.loads((publish.run / 'result.json').read_text())
    (publish.run / 'result.json').write_text(json.dumps({**record, 'test_top1': 91.0}))
    hub.log.clear()
    assert publish(exist_ok=True)['revision'] != first['revision']
    assert not [path for method, path in hub.log if method == 'PUT']  # the weights were there


STAGES = [
    ('GET', '/api/models/'),
    ('POST', '/repos/create'),
    ('GET', '/revision/main'),
    ('POST', '/preupload/'),
    ('POST', '/objects/batch'),
    ('PUT', '/lfs/'),
    ('POST', '/validate-yaml'),
    ('POST', '/commit/'),
]


@pytest.mark.parametrize(
    ('stage', 'status'),
    [
        *[(stage, (500, 503, 429)[i % 3]) for i, stage in enumerate(STAGES)],
        (STAGES[-1], 429),
        (STAGES[-1], 500),
        (STAGES[-2], 500),
    ],
)
def test_a_transient_fault_of_the_server_is_retried(hub, send, stage, status):
    hub.faults.append(Fault(*stage, status=status, headers={'Retry-After': '0'}))
    commit = send()
    assert hub.faults[0].times == 0
    assert hub.repos[REPO].branches['main'] == commit
    assert len(hub.repos[REPO].commits) == 2


@pytest.mark.parametrize('stage', STAGES)
def test_a_cut_connection_is_retried(hub, send, stage):
    hub.faults.append(Fault(*stage, cut='before'))
    commit = send()
    assert hub.faults[0].times == 0
    assert hub.repos[REPO].branches['main'] == commit


@pytest.mark.parametrize('stage', [('POST', '/repos/create'), ('POST', '/commit/')])
def test_a_lost_answer_does_not_make_it_twice(hub, send, stage):
    hub.faults.append(Fault(*stage, cut='after'))
    commit = send()
    assert hub.repos[REPO].branches['main'] == commit
    assert len(hub.repos[REPO].commits) == 2
    assert len([path for method, path in hub.log if '/commit/' in path]) == 1


@pytest.mark.parametrize(
    ('stage', 'status', 'says'),
    [
        (('POST', '/repos/create'), 403, 'a token that can write'),
        (('POST', '/repos/create'), 503, 'out of order'),
        (('GET', '/revision/main'), 500, 'out of order'),
        (('POST', '/preupload/'), 403, 'a token that can write'),
        (('POST', '/objects/batch'), 400, 'refused'),
        (('PUT', '/lfs/'), 403, 'a token that can write'),
        (('POST', '/lfs-verify'), 400, 'refused'),
        (('POST', '/validate-yaml'), 400, 'refused'),
        (('POST', '/commit/'), 400, 'refused'),
        (('POST', '/commit/'), 500, 'out of order'),
        (('POST', '/commit/'), 429, 'fewer requests'),
        (('POST', '/commit/'), 412, 'somebody else changed it'),
        (('POST', '/commit/'), 0, 'cannot be reached'),
    ],
)
@pytest.mark.parametrize('exists', [False, True])
def test_a_lasting_fault_leaves_the_hub_as_it_was(hub, send, stage, status, says, exists):
    if exists:
        if stage[1] == '/repos/create':
            pytest.skip('nothing is created')
        hub.repos[REPO] = loopback.Repo(False)
        hub.repos[REPO].add('main', {})
    before = {name: (dict(repo.branches), dict(repo.commits)) for name, repo in hub.repos.items()}
    hub.faults.append(Fault(*stage, status=status, cut='' if status else 'before', times=FOREVER))
    with pytest.raises(Failed, match=rf'HubError: publishing to {REPO} failed: .*{says}') as failed:
        send(exist_ok=exists)
    assert {name: (repo.branches, repo.commits) for name, repo in hub.repos.items()} == before
    assert 'Nothing was published and the Hub is as it was.' in failed.value.message
    assert '\n' not in failed.value.message
    hub.faults.clear()
    send(exist_ok=exists)  # the same command, when that is fixed


def test_a_repo_that_cannot_be_removed_again_is_named(hub, send):
    hub.faults += [Fault('POST', '/commit/', status=400, times=FOREVER), Fault('DELETE', '', status=500, times=FOREVER)]
    with pytest.raises(Failed, match=rf'an empty repo may be left at {hub.url}/{REPO}: run again with --exist-ok'):
        send()
    hub.faults.clear()
    send(exist_ok=True)


def test_a_commit_that_may_have_arrived_is_not_called_failed(hub, send):
    hub.faults += [
        Fault('POST', '/commit/', cut='after'),
        Fault('POST', '/commit/', cut='before', times=FOREVER),
        Fault('GET', '/revision/main', status=503, skip=1, times=FOREVER),
    ]
    with pytest.raises(Failed, match=r'does not answer whether it arrived') as failed:
        send()
    assert 'Nothing was published' not in failed.value.message
    assert len(hub.repos[REPO].commits) == 2  # it had, and nobody has deleted it


def test_a_branch_is_made_and_loaded_from(client, hub, publish):
    publish()
    main = hub.repos[REPO].branches['main']
    (publish.run / 'summary.csv').write_text('changed')
    record = publish(revision='v2', exist_ok=True)
    assert hub.repos[REPO].branches == {'main': main, 'v2': record['revision']}
    assert record['revision'] != main
    assert load(client, f'hf-hub:{REPO}@v2') == expected(publish.run)
    hub.faults.append(Fault('POST', '/commit/', status=400, times=FOREVER))
    (publish.run / 'summary.csv').write_text('changed_again')
    with pytest.raises(Failed, match='the Hub is as it was'):
        publish(revision='v3', exist_ok=True)
    assert set(hub.repos[REPO].branches) == {'main', 'v2'}


def test_tokens(hub, publish):
    with pytest.raises(Failed, match=r'there is none: log in with `hf auth login`'):
        publish(HF_TOKEN=None)
    assert not hub.log
    with pytest.raises(Failed, match=r'a token that can write'):
        publish(HF_TOKEN=READER)
    with pytest.raises(Failed, match=r'a token that can write'):
        publish('somebody/resnet20s.alfa_c10')
    assert not hub.repos


@pytest.mark.parametrize('fault', ['unfinished', 'nan', 'foreign', 'id'])
def test_local_checks_come_before_any_request(hub, publish, make_run, fault):
    run = make_run(status='running') if fault == 'unfinished' else make_run()
    state = load_file(run / 'model_best.safetensors')
    state |= {'nan': {'fc.bias': torch.full((10,), float('nan'))}, 'foreign': {'x': torch.zeros(1)}}.get(fault, {})
    save_file(state, run / 'model_best.safetensors')
    with pytest.raises(Failed, match=r'CheckpointError|HubError'):
        publish(repo='nobody' if fault == 'id' else REPO, run=run)
    assert not hub.log
