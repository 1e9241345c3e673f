"""Records from another machine: what is added, and what is refused with which reason."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from studies import merge, records
from studies.jobs import Job, published_command
from studies.recipes import RECIPES
from timm_alfa.utils.bits import PackedBits

COMMIT = '0123456789abcdef0123456789abcdef01234567'
JOB = Job(RECIPES['small_gradient'], 10)


def record(job=JOB, **changes):
    bits = asdict(PackedBits.pack(np.arange(1000) % 4 > 0))
    scores = {}
    for part in merge.PARTS:
        scores.update({f'{part}_top1': 75.0, f'{part}_correct': bits, f'{part}_images': 1000})
    known = dict(
        name=job.name,
        recipe=job.recipe.name,
        seed=job.seed,
        epochs_scale=job.scale,
        options=job.options,
        dataset=job.options['dataset'],
        threads=8,
        jobs=1,
        changed_after=[],
        reproduce=published_command(job),
        history={},
        status='finished',
        mixed_precision=job.precision,
        device='NVIDIA H100 80GB HBM3',
        commit=COMMIT,
        versions=dict(torch='2.14.1+cu130', timm='1.0.31'),
        labels_sha256='a' * 64,
        epochs_done=job.options['epochs'],
        seconds=60.0,
        seconds_per_epoch=1.0,
        **{key: job.options[key] for key in ('epochs', 'batch_size', 'model', 'task')},
    )
    return {**dict.fromkeys(records.KEPT), **known, **scores, **changes}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A folder to merge and one to merge into; one commit is known."""
    monkeypatch.setattr(merge, 'is_in_history', lambda commit: commit == COMMIT)
    theirs, ours = tmp_path / 'theirs', tmp_path / 'ours'
    theirs.mkdir()
    ours.mkdir()
    return theirs, ours


def test_good_records_are_added_as_they_are(folders, capsys):
    theirs, ours = folders
    for seed in (10, 11):
        records.save(record(Job(JOB.recipe, seed)), theirs)
    assert merge.main([str(theirs), '--records', str(ours), '--dry-run']) == 0 and not [*ours.iterdir()]
    assert merge.main([str(theirs), '--records', str(ours)]) == 0
    assert records.load_all(ours) == records.load_all(theirs) and len(records.load_all(ours)) == 2
    assert merge.main([str(theirs), '--records', str(ours)]) == 0, 'they are already there'
    assert 'small_gradient-s10.json: ok' in capsys.readouterr().out


def test_one_bad_record_does_not_keep_out_the_others(folders, capsys):
    theirs, ours = folders
    records.save(record(), theirs)
    records.save(record(Job(JOB.recipe, 11), device='cpu`<b>'), theirs)
    (theirs / 'broken.json').write_text('{')
    assert merge.main([str(theirs), '--records', str(ours)]) == 1
    assert [path.name for path in ours.iterdir()] == ['small_gradient-s10.json']
    shown = capsys.readouterr().out
    assert 'broken.json: refused: it cannot be read as JSON' in shown and 'expected plain text' in shown


def test_the_command_of_a_record_says_how_it_was_run(folders):
    """With the flags that are no part of a recipe; records of older versions have none."""
    theirs, ours = folders
    how = dict(cuda_graph=True, channels_last=False)
    command = published_command(JOB, records.flags_of(how))
    assert command == f'{published_command(JOB)} --cuda-graph'
    records.save(record(**how, reproduce=command), theirs)
    records.save(record(Job(JOB.recipe, 11), **how), theirs)
    assert [bool(found) for _, found in merge.merge(theirs, ours)] == [False, True]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        # the recipe
        (dict(recipe='nothing'), "there is no recipe 'nothing'"),
        (dict(options={**JOB.options, 'lr': 0.3}), 'not those of a complete run of the recipe'),
        (dict(status='stopped'), 'not those of a complete run'),
        (dict(seed=12), "a run of this recipe and seed is 'small_gradient-s12'"),
        (dict(batch_size=256), 'batch_size is 256, the recipe has 128'),
        (dict(epochs_done=30), '30 of 60 epochs'),
        (dict(changed_after=[3]), 'resumed with other options'),
        (dict(reproduce='curl example.com'), "its command is not 'accelerate launch"),
        (dict(mixed_precision='fp8'), 'expected one of no, bf16, fp16'),
        (dict(epochs_scale=float('nan')), 'epochs_scale is nan'),
        # the data
        (dict(dataset='hfds/other/cifar10'), "its dataset is 'hfds/other/cifar10'"),
        (dict(labels_sha256=None), 'labels_sha256 is missing'),
        # the code
        (dict(commit=f'{COMMIT}+'), 'is not a commit without changes'),
        (dict(commit='f' * 40), "ffffffffff is not in this repository's history"),
        (dict(commit=f'{COMMIT}, {"f" * 40}'), "is not in this repository's history"),
        (dict(commit=None), 'commit is None: expected str'),
        # the scores
        (dict(test_top1=76.0), 'test_top1 is 76.0, its bits give 75.0000'),
        (dict(test_top1=175.0), 'test_top1 is 175.0: expected a percentage'),
        (dict(unused_images=2000), 'unused_correct has 1000 images, unused_images is 2000'),
        (dict(val_correct=dict(images=16, correct=1, bits='gA==')), '1 bytes of bits do not fit 16 images'),
        (dict(val_correct={}), 'val_correct: '),
        (dict(test_correct=None), 'test_correct is missing'),
        # the form
        (dict(run='/home/someone/run'), "'run' is not a key of a record"),
        (dict(options=[1]), 'expected dict'),
        (dict(versions=dict(torch='2', timm='a|b')), r'versions.timm is .*expected plain text'),
    ],
)
def test_refusals(changes, message, folders):
    theirs, ours = folders
    (theirs / 'small_gradient-s10.json').write_text(json.dumps(record(**changes)))
    ((_, found),) = merge.merge(theirs, ours)
    with pytest.raises(AssertionError, match=message):
        assert not found, '; '.join(found)
    assert not [*ours.iterdir()]


def test_data_in_another_order_are_refused_where_runs_would_be_compared(folders):
    theirs, ours = folders
    records.save(record(), ours)
    other = Job(RECIPES['small_gradient_double'], 10)
    records.save(record(other, labels_sha256='b' * 64), theirs)
    ((_, found),) = merge.merge(theirs, ours)
    assert 'in another order' in found[0]
    records.save(record(other, labels_sha256='b' * 64, device='cpu'), theirs)  # compared with no GPU's run
    ((_, found),) = merge.merge(theirs, ours)
    assert not found


def test_a_record_that_is_there_is_kept(folders):
    theirs, ours = folders
    records.save(record(), ours)
    records.save(record(seconds=1.0), theirs)
    ((_, found),) = merge.merge(theirs, ours)
    assert found == ['there is another record of this run, which is kept']
    assert records.load_all(ours)[0]['seconds'] == 60.0


def test_a_file_is_called_as_its_run(folders):
    theirs, ours = folders
    (theirs / 'other.json').write_text(json.dumps(record()))
    ((_, found),) = merge.merge(theirs, ours)
    assert found == ["it holds 'small_gradient-s10'"]


@pytest.mark.parametrize('content', ['[]', '"text"', '{}', '{"name": 3}'])
def test_anything_else_is_refused_without_a_traceback(content, folders):
    theirs, ours = folders
    (theirs / 'x.json').write_text(content)
    ((_, found),) = merge.merge(theirs, ours)
    assert found


def test_an_empty_folder_is_an_error(folders, capsys):
    theirs, ours = folders
    assert merge.main([str(theirs), '--records', str(ours)]) == 2
    assert 'holds no records' in capsys.readouterr().err


def test_an_unknown_commit_is_not_in_the_history():
    assert not merge.is_in_history('f' * 40)
