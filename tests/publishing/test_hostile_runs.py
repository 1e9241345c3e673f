"""Run folders made to publish what they should not: files from elsewhere, secrets, code in a card."""

import ast
import json
import os
import re
import shlex

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from timm_alfa.errors import AlfaError, CheckpointError, HubError
from timm_alfa.publishing.publish import Publication, publish
from timm_alfa.publishing.record_checks import read_public_run
from timm_alfa.publishing.ship import ship
from timm_alfa.publishing.verify import data_config
from timm_alfa.training.options.validate_args import parse_args as parse_validate_args

REPO = 'me/resnet20s.alfa_c10'
SECRET = 'Zq7x9Kd2Lm5Rt8Bv4Nc6'
TOKEN = f'hf_{SECRET}'


def change(run, **values):
    record = json.loads((run / 'result.json').read_text())
    (run / 'result.json').write_text(json.dumps({**record, **values}))
    return run


def change_config(run, pretrained_cfg=None, **values):
    config = json.loads((run / 'config.json').read_text())
    config['pretrained_cfg'].update(pretrained_cfg or {})
    (run / 'config.json').write_text(json.dumps({**config, **values}))
    return run


def published(run, tmp_path, repo=REPO, **kwargs) -> dict[str, bytes]:
    """The files of a dry run."""
    out = tmp_path / 'out'
    publish(Publication(run, repo, **kwargs), output=out)
    return {path.name: path.read_bytes() for path in out.rglob('*') if path.is_file()}


def card_of(run, tmp_path, **kwargs) -> ModelCard:
    kwargs.setdefault('license', 'mit')
    return ModelCard(published(run, tmp_path, repo='me/x', **kwargs)['README.md'].decode())


FILES = ('result.json', 'config.json', 'args.yaml', 'summary.csv', 'curves.png', 'eta.png', 'model_best.safetensors')


@pytest.mark.parametrize('name', FILES)
def test_a_symbolic_link_is_not_followed(make_run, tmp_path, name):
    """`ln -s ~/token RUN/summary.csv` publishes the token."""
    run = make_run(eta=[0.1])
    (run / name).rename(tmp_path / 'elsewhere')
    (run / name).symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(CheckpointError, match=rf'{re.escape(name)}.*symbolic link') as error:
        published(run, tmp_path)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'out').exists()


def test_a_link_in_the_standard_run_or_in_a_run_to_ship_is_not_followed(make_run, tmp_path):
    run, standard = make_run(), make_run(task='standard')
    (standard / 'result.json').rename(tmp_path / 'elsewhere')
    (standard / 'result.json').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(CheckpointError, match='symbolic link'):
        published(run, tmp_path, standard=standard)
    (run / 'model_best.safetensors').rename(tmp_path / 'weights')
    (run / 'model_best.safetensors').symlink_to(tmp_path / 'weights')
    (tmp_path / 'manifest.json').write_text('[]')
    with pytest.raises(CheckpointError, match='symbolic link'):
        ship(run, 'resnet20s.x', root=tmp_path)
    assert not (tmp_path / 'files').exists()


@pytest.mark.parametrize('name', FILES)
def test_a_pipe_is_not_opened(make_run, tmp_path, name):
    run = make_run(eta=[0.1])
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(CheckpointError):
        published(run, tmp_path)


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('summary.csv', b'-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n'),
        ('summary.csv', f'epoch,note\n1,{SECRET}\n'.encode()),
        ('summary.csv', b'\xff\xfe'),
        ('curves.png', SECRET.encode()),
        ('eta.png', b'\xff\xd8\xff'),
        ('args.yaml', SECRET.encode()),
        ('args.yaml', f'a: [{SECRET}'.encode()),
    ],
)
def test_a_file_of_another_kind_is_not_published(make_run, tmp_path, name, content):
    """As from a hard link, which cannot be seen."""
    run = make_run()
    (run / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name) as error:
        published(run, tmp_path)
    assert SECRET not in str(error.value)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'checkpoint',
    ['../elsewhere.safetensors', '{tmp}/elsewhere.safetensors', 'args.yaml', '.', ['x'], '..\\x.safetensors'],
)
def test_a_checkpoint_stays_in_the_folder(make_run, tmp_path, checkpoint):
    run = make_run()
    (tmp_path / 'elsewhere.safetensors').write_bytes((run / 'model_best.safetensors').read_bytes())
    name = checkpoint.format(tmp=tmp_path) if isinstance(checkpoint, str) else checkpoint
    with pytest.raises(CheckpointError, match='has checkpoint .*in the run folder'):
        published(change(run, checkpoint=name), tmp_path)


def test_only_known_keys_of_config_are_published(make_run, tmp_path):
    run = change_config(
        make_run(),
        {'url': 'https://evil/w.pth', 'hf_hub_id': 'evil/x', 'custom_load': True, 'notes': ['x']},
        auto_map={'AutoModel': 'evil--code.Model'},
        custom_pipelines={'x': {'impl': 'evil.py'}},
    )
    files = published(run, tmp_path)
    config = json.loads(files['config.json'])
    assert set(config) == {
        'architecture',
        'num_classes',
        'num_features',
        'global_pool',
        'label_names',
        'model_args',
        'pretrained_cfg',
    }
    assert b'evil' not in files['config.json']
    assert not {'url', 'hf_hub_id', 'custom_load', 'notes', 'source', 'file'} & set(config['pretrained_cfg'])
    assert config['pretrained_cfg']['input_size'] == [3, 32, 32]


def test_secrets_are_redacted_again(make_run, tmp_path):
    """A run of an older version, or one that was edited, may hold what train.py redacts today."""
    run = make_run(
        device=f'a GPU at https://me:{SECRET}@host/',
        experiment=f'run_{TOKEN}',
        command=['train.py', '--hub-token', SECRET, f'--api-key={SECRET}'],
        continued=[
            {'epoch': 1, 'command': ['train.py', '--hub-token', SECRET], 'mixed_precision': 'no', 'before': 'no'}
        ],
        task_options={'password': SECRET, 'note': TOKEN},
        versions={'torch': f'2.15 ghp_{SECRET}'},
        commit=f'glpat-{SECRET}',
        val_split=f'train {TOKEN}',
        note=f'Bearer {SECRET}',
    )
    change_config(run, label_names=[TOKEN, *'bcdefghij'])
    (run / 'args.yaml').write_text(yaml.safe_dump({'data_dir': f's3://x?token={SECRET}', 'api_key': SECRET, 'lr': 0.1}))
    (run / 'summary.csv').write_text(f'epoch,{TOKEN}\n0,1\n')
    files = published(run, tmp_path)
    for name, content in files.items():
        assert SECRET.encode() not in content, name
    assert yaml.safe_load(files['args.yaml'])['lr'] == 0.1
    assert b'***' in files['README.md']


@pytest.mark.parametrize('kwargs', [{'repo': f'me/{TOKEN}'}, {'repo': f'me/resnet20s.{TOKEN}'}, {'revision': TOKEN}])
def test_a_name_with_a_token_is_refused(make_run, tmp_path, kwargs):
    with pytest.raises(HubError, match=r'looks like a secret: use another name') as error:
        published(make_run(), tmp_path, **kwargs)
    assert SECRET not in str(error.value)
    with pytest.raises(HubError, match='looks like a secret'):
        ship(make_run(), f'resnet20s.{TOKEN}', root=tmp_path)


MARKUP = (
    '<img src=x onerror=alert(1)>[click](javascript:alert) | ` ``` **b**'
    '\n\n# Heading\n---\nlicense: mit\x1b[31m\u2028x\x85y'
)


def test_values_on_a_card_have_no_markup(make_run, tmp_path):
    run = make_run(
        dataset='hfds/me/' + MARKUP.replace('/', ''),
        task_options={MARKUP: MARKUP},
        blocks=[MARKUP, 'layer3'],
        eta=[0.5, 0.5],
        device=MARKUP,
        commit=MARKUP,
        versions={MARKUP: MARKUP},
        command=['train.py', MARKUP],
        continued=[{'epoch': 2, 'command': ['train.py', MARKUP], 'mixed_precision': 'no', 'before': 'bf16'}],
        test_split=MARKUP,
        val_split=MARKUP + ' held out',
    )
    card = card_of(run, tmp_path)
    tokens = MarkdownIt('commonmark', {'html': True}).enable('table').parse(card.text)
    inline = [child for token in tokens for child in token.children or []]
    assert not [token for token in tokens + inline if token.type.startswith('html')]
    assert not [token for token in inline if token.type == 'link_open']
    assert [token.attrs['src'] for token in inline if token.type == 'image'] == ['eta.png', 'curves.png']
    headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == 'heading_open']
    assert headings[:2] == ['Model card for x', 'Model details']
    assert headings[-2:] == ['Limitations', 'Citation']
    assert 'Heading' not in headings
    code = [token for token in tokens if token.type == 'fence']
    assert [token.info for token in code] == ['shell', *['python'] * 4, 'shell', 'bibtex']
    # the table of accuracies, of options and of eta: header and rows as many as there are
    assert card.text.count('\n| --- ') == 3
    assert len([token for token in tokens if token.type == 'tr_open']) == (1 + 1) + (1 + 2) + (1 + 2)
    for char in '\x1b\u2028\x85':
        assert char not in card.content


def test_values_in_the_metadata_are_values(make_run, tmp_path):
    """Also for readers that take U+2028, U+2029 and U+0085 for line breaks, as YAML 1.1 does."""
    split = 'test\n---\nlicense: evil\u2028license: evil\x85- evil'
    card = card_of(make_run(dataset='hfds/me/a: b\u2029evil: 1', test_split=split), tmp_path)
    header = card.content.partition('---\n')[2].partition('\n---\n')[0]
    assert not re.search('[\u2028\u2029\x85]', header)
    values = yaml.safe_load(header)
    assert values['license'] == 'mit'
    assert 'evil' not in values
    assert values['datasets'] == ['me/a: b\\u2029evil: 1']
    assert card.data.eval_results[0].dataset_split == 'test\\n---\\nlicense: evil\\u2028license: evil\\x85- evil'


def test_a_command_is_quoted(make_run, tmp_path):
    words = ['train.py', '--name', '$(touch pwned)', '; rm -rf ~ #', "it's", '`id`', '```']
    card = card_of(make_run(command=words), tmp_path)
    fences = [token for token in MarkdownIt().parse(card.text) if token.type == 'fence' and token.info == 'shell']
    (line,) = fences[1].content.splitlines()  # after the one that installs
    start = 'accelerate launch --mixed_precision bf16 -m timm_alfa.train'
    assert shlex.split(line) == [*start.split(), *words[1:]]


@pytest.mark.parametrize(
    'values',
    [
        {'mixed_precision': 'bf16; curl evil | sh'},
        {'mixed_precision': ['bf16']},
        {'command': 'train.py; curl evil | sh'},
        {'command': ['train.py', {'x': 1}]},
        {'continued': 'x'},
        {'continued': [{'epoch': '1\nevil', 'command': [], 'mixed_precision': 'no', 'before': 'no'}]},
        {'continued': [{'epoch': 1}]},
        {'seconds': 'x'},
        {'lr': {'a': 1}},
        {'best_epoch': '<b>'},
        {'robust_top1': '12'},
        {'eta': ['x']},
        {'blocks': 'layer3'},
        {'versions': ['x']},
        {'task_options': 'x'},
        {'device': {'x': 1}},
        {'num_classes': '10'},
        {'test_split': ['x']},
        {'dataset': 3},
    ],
)
def test_values_of_another_type_are_refused(make_run, tmp_path, values):
    (key,) = values
    with pytest.raises(AlfaError, match=key) as error:
        published(change(make_run(), **values), tmp_path)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'out').exists()


def test_all_wrong_types_are_named_at_once(make_run, tmp_path):
    run = change_config(change(make_run(), lr='x', seconds='y'), {'input_size': ['__import__("os")', 1, 1]})
    with pytest.raises(CheckpointError, match=r'lr is .*seconds is .*pretrained_cfg\.input_size is '):
        published(run, tmp_path)


def test_a_snippet_holds_no_code_of_others(make_run, tmp_path):
    evil = "main'); __import__('os').system('id'); ('"
    card = card_of(make_run(), tmp_path, revision=evil)
    codes = re.findall(r'```python\n(.*?)```', card.text, re.S)
    assert len(codes) == 4
    for code in codes:
        nodes = list(ast.walk(ast.parse(code)))
        values = [node.value for node in nodes if isinstance(node, ast.Constant)]
        assert f'hf-hub:me/x@{evil}' in values or evil in values
        assert '__import__' not in [node.id for node in nodes if isinstance(node, ast.Name)]


@pytest.mark.parametrize('environment', ['[loader]', 'loader', '5', 'null'])
def test_an_environment_that_is_not_a_mapping_is_ignored(make_run, environment):
    run = make_run()
    (run / 'args.yaml').write_text(f'val_split: validation\ndataset: digits\nenvironment: {environment}\n')
    assert data_config(read_public_run(run)).loader == 'auto'
    assert parse_validate_args(['--checkpoint', str(run)]).data.loader == 'auto'


def test_the_environment_names_the_loader(make_run):
    run = make_run()
    (run / 'args.yaml').write_text('val_split: validation\ndataset: digits\nenvironment: {loader: timm}\n')
    assert data_config(read_public_run(run)).loader == 'timm'
    assert parse_validate_args(['--checkpoint', str(run)]).data.loader == 'timm'


def test_where_files_were_is_not_published(make_run, tmp_path):
    """Neither the folders of a machine, nor the user's name, nor hosts; names in args.yaml, the record and the card."""
    words = ['train.py', '--data-dir', '/home/alice/data/cifar10', '--output=/mnt/nas7/alice/my runs/x', '-b', '8']
    run = make_run(
        dataset='hfds//home/alice/private/cifar10',
        command=words,
        continued=[
            {'epoch': 1, 'command': [*words, '--resume', '~alice/run'], 'mixed_precision': 'no', 'before': 'no'}
        ],
    )
    options = {
        'model': 'resnet20s',
        'data_dir': '/home/alice/data/cifar10',
        'class_map': 'C:\\Users\\alice\\classes.txt',
        'output': '/home/alice',
        'dataset': 'wds/https://storage.alice.example/shards/{0..9}.tar',
        'log_with': ['alice@node7.cluster:/var/log/runs'],
        'environment': {'command': words},
    }
    (run / 'args.yaml').write_text(yaml.safe_dump(options))
    files = published(run, tmp_path)
    for name, content in files.items():
        assert not re.search(rb'alice|nas7|node7|/home|/mnt', content), name
    args = yaml.safe_load(files['args.yaml'])
    assert args['data_dir'] == '/PATH/cifar10'
    assert args['class_map'] == '/PATH/classes.txt'
    assert args['output'] == '/PATH'
    assert json.loads(files['result.json'])['command'][3] == '--output=/PATH/x'
    assert b'timm_alfa.train --data-dir /PATH/cifar10 --output=/PATH/x -b 8' in files['README.md']
    assert b'trained on CIFAR-10' in files['README.md']  # what the data are is known by the last part
