"""train.py under accelerate's FSDP2: the weights of one process, states that any launch can resume."""

import shutil

import pytest
import torch
from helpers.training_processes import Processes, ShardedProcesses, train_args
from helpers.training_runs import Runs

from timm_alfa.training.checkpoint.store import state_folders

BLOCKS = {'AUTO_WRAP_POLICY': 'TRANSFORMER_BASED_WRAP', 'TRANSFORMER_CLS_TO_WRAP': 'Block'}
SIZES = {'AUTO_WRAP_POLICY': 'SIZE_BASED_WRAP', 'MIN_NUM_PARAMS': '2000'}
VIT = ('--model', 'test_vit', '--lr', '0.05', '-b', '8')
L_ALFA = (
    '--task',
    'l_alfa',
    '--alfa-blocks',
    'units:3',
    '--alfa-steps',
    '2',
    '--model-ema',
    '--model-ema-decay',
    '0.9',
    '--clip-grad',
    '1',
    '--checkpoint-every',
    '2',
    *VIT,
)


def close(first, second):
    assert first.keys() == second.keys()
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-6, atol=1e-6)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ('task', 'options', 'precision'),
    [
        (('alfa', '--alfa-blocks', 'all', '--alfa-steps', '2', '--opt', 'adamw', '--lr', '0.001'), {}, 'bf16'),
        (
            ('alfa', '--alfa-blocks', 'all', '--alfa-steps', '2', '--grad-accum-steps', '2', '--freeze', '1'),
            BLOCKS,
            'no',
        ),
        (('l_alfa', '--alfa-blocks', 'last', '--alfa-projection', 'simplex', '--alfa-random-start'), SIZES, 'no'),
    ],
)
def test_sharded_processes_are_ddp(task, options, precision, tmp_path):
    argv, variables = (*VIT, '--epochs', '1', '--task', *task), {'ACCELERATE_MIXED_PRECISION': precision}
    plain = Processes(tmp_path, train_args(tmp_path, 'ddp', *argv), count=2, variables=variables)
    sharded = ShardedProcesses(
        tmp_path, train_args(tmp_path, 'fsdp', *argv), hooks=['says_sharded'], options=options, variables=variables
    )
    want, got = plain.record(), sharded.record()
    assert want['mixed_precision'] == got['mixed_precision'] == precision
    assert 'sharded: True' in sharded.stderr and 'sharded: False' not in sharded.stderr
    assert got['val_loss'] == pytest.approx(want['val_loss'], rel=1e-5)
    assert got.get('eta') == (want.get('eta') and pytest.approx(want['eta'], rel=1e-6))
    runs = Runs(tmp_path)
    close(runs.weights('ddp'), runs.weights('fsdp'))


def test_a_state_is_resumed_sharded_and_alone(tmp_path):
    """Killed, and resumed by as many sharded processes: bit for bit; by one that is not sharded: the same weights."""
    whole = ShardedProcesses(tmp_path, train_args(tmp_path, 'whole', *L_ALFA), options=BLOCKS).record()
    argv = train_args(tmp_path, 'cut', *L_ALFA)
    assert ShardedProcesses(tmp_path, argv, hooks=['rank_one_dies'], options=BLOCKS).wait() == [1, -9]
    (state,) = state_folders(tmp_path / 'cut' / 'last')
    assert state.name.endswith('update-2')
    shutil.copytree(tmp_path / 'cut', tmp_path / 'alone')
    cut = train_args(tmp_path, 'cut', *L_ALFA, '--resume', 'auto')
    assert ShardedProcesses(tmp_path, cut, options=BLOCKS).record()['eta'] == whole['eta']
    alone = train_args(tmp_path, 'alone', *L_ALFA, '-b', '16', '--resume', 'auto')
    assert Processes(tmp_path, alone).record()['eta'] == pytest.approx(whole['eta'], rel=1e-6)
    runs = Runs(tmp_path)
    assert runs.rows('whole') == runs.rows('cut')
    for file in ('model_last.safetensors', 'model_best.safetensors'):
        assert same(runs.weights('whole', file), runs.weights('cut', file))
        close(runs.weights('whole', file), runs.weights('alone', file))


@pytest.mark.sweep
def test_a_state_of_ddp_is_resumed_sharded(tmp_path):
    """The other way round: sharded processes are stopped by a signal, and processes that do not shard end the run."""
    options = ('--task', 'alfa', '--opt', 'adamw', '--checkpoint-every', '2', *VIT)
    Processes(tmp_path, train_args(tmp_path, 'whole', *options), count=2).record()
    Processes(tmp_path, train_args(tmp_path, 'run', *options), count=2, hooks=['rank_one_dies']).wait()
    argv = train_args(tmp_path, 'run', *options, '--resume', 'auto')
    stopped = ShardedProcesses(tmp_path, argv, hooks=['stops_after_two']).record()
    assert stopped['status'] == 'stopped' and stopped['updates'] == 4
    Processes(tmp_path, argv, count=2).record()
    runs = Runs(tmp_path)
    close(runs.weights('whole'), runs.weights('run'))


@pytest.mark.sweep
def test_a_sharded_run_with_norms_ends_as_a_run_does(tmp_path):
    """Norms, auxiliary ones too, a test split, and what timm and validate.py read of it."""
    import timm

    argv = train_args(tmp_path, 'run', '--task', 'alfa', '--alfa-bn', 'aux', '--val-fraction', '0.5', '-b', '8')
    record = ShardedProcesses(tmp_path, argv, options={**BLOCKS, 'TRANSFORMER_CLS_TO_WRAP': 'BasicBlock'}).record()
    assert record['test_top1'] is not None and record['num_processes'] == 2
    model = timm.create_model(f'local-dir:{tmp_path / "run"}', pretrained=True)
    assert sum(p.numel() for p in model.parameters()) == record['params']


@pytest.mark.parametrize(
    ('argv', 'options', 'said'),
    [
        ((), {'VERSION': '1', 'CPU_RAM_EFFICIENT_LOADING': 'false'}, 'fsdp_version: 2'),
        ((), {'ACTIVATION_CHECKPOINTING': 'true'}, '--grad-checkpointing'),
        ((), {'OFFLOAD_PARAMS': 'true'}, 'fsdp_offload_params'),
        (('--torchcompile', 'aot_eager'), {}, '--torchcompile does not work with FSDP2'),
        ((), {'IGNORED_MODULES': '.*head'}, 'fsdp_ignored_modules'),
        ((), {**BLOCKS, 'TRANSFORMER_CLS_TO_WRAP': 'Nonsense'}, 'fsdp_auto_wrap_policy'),
        (('--clip-grad', '0.01', '--clip-mode', 'agc'), {}, '--clip-mode agc fails on sharded weights'),
        (('--opt', 'muon'), {}, "--opt 'muon' updates sharded weights differently"),
    ],
)
def test_what_cannot_be_sharded_is_refused_with_what_to_type(argv, options, said, tmp_path):
    run = ShardedProcesses(tmp_path, train_args(tmp_path, 'run', *VIT, *argv), options=options)
    assert run.wait(60) == [2, 2]
    assert run.stderr.count('error:') == 1 and said in run.stderr
    assert not (tmp_path / 'run').exists()


def test_fsdp_that_accelerate_leaves_out_is_reported(tmp_path):
    run = Processes(tmp_path, train_args(tmp_path, 'run', *VIT), count=2, variables={'ACCELERATE_USE_FSDP': 'true'})
    assert run.wait(60) == [2, 2] and 'ignores fsdp_config' in run.stderr and not (tmp_path / 'run').exists()
