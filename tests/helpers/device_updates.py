"""Updates of every method, made in the ordinary way and by the device alone, on the same batches."""

from typing import NamedTuple

import torch
from helpers.tape import Tape
from helpers.task_table import TABLE

from timm_alfa.tasks import TASKS
from timm_alfa.training.metrics import Totals
from timm_alfa.training.update.agreement import Requests
from timm_alfa.training.update.device_step import DeviceStep, Parts
from timm_alfa.training.update.step import Batch, TrainStep

UPDATES, BAD = 12, 4  # how many are compared, and which one has a NaN in its images
WARM_UP = ('--warmup-updates', '5')
VARIANTS = {
    'alfa, all blocks': ('alfa', dict(blocks='all')),
    'alfa, aux': ('alfa', dict(bn='aux')),
    'alfa, l2, random start': ('alfa', dict(norm='l2', random_start=True)),
    'alfa, rms, random start': ('alfa', dict(unit='rms', random_start=True, eps=0.1)),
    'alfa, gap': ('alfa', dict(blocks='all', gap=0.05)),
    'alfa, every': ('alfa', dict(every=2)),
    'alfa, start': ('alfa', dict(start=6)),
    'l_alfa, joint': ('l_alfa', dict(mode='joint')),
    'l_alfa, simplex, aux': ('l_alfa', dict(projection='simplex', bn='aux')),
}
REFUSED = {'moex'}
CASES = {**{name: (name, {}) for name in TABLE if name not in REFUSED}, **VARIANTS}
SMALL = ('-b', '4', '--train-subset', '24')
FUSED = ('--opt-kwargs', 'fused=True')  # what --cuda-graph trains with


def flags(case):
    """A case's words on the command line."""
    name, options = CASES[case]
    words = ['--task', name]
    for key, value in {**TABLE[name], **options}.items():
        words.append(f'--{TASKS[name].prefix}-{key.replace("_", "-")}')
        words += [] if value is True else [str(value)]
    return [*words, *SMALL]


class Trained(NamedTuple):
    """What some updates left."""

    tensors: dict[str, torch.Tensor]
    outcomes: list
    counted: int


def batches(run):
    """The first updates' images and labels; one image is not finite once."""
    loader = run.data.train
    found = []
    for epoch in range(UPDATES):
        loader.set_epoch(epoch)
        found += [Batch(input, target, loader.last_indices) for input, target in loader]
        if len(found) >= UPDATES:
            break
    bad = found[BAD]
    input = bad.input.clone()
    input[0, 0, 0, 0] = float('nan')
    found[BAD] = bad._replace(input=input)
    return found[:UPDATES]


def nothing_requested():
    return Requests(stop=False, save=False)


def left_by(run, totals):
    """Everything that an update changes."""
    tensors = {f'task.{name}': value.clone() for name, value in run.task.state_dict().items()}
    tensors['totals'] = totals.sums.clone()
    groups = run.optimizer.param_groups
    for at, parameter in enumerate(p for group in groups for p in group['params']):
        for name, value in run.optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f'optimizer.{at}.{name}'] = torch.as_tensor(value).clone()
    return tensors


def ordinary(run):
    """Updates by the ordinary loop's step."""
    totals = Totals(run.accelerator.device)
    step, outcomes = TrainStep(run, totals), []
    run.wrapped.train()
    for update, batch in enumerate(batches(run)):
        outcomes += step([batch], update, nothing_requested).outcomes
        if run.schedule is not None:
            run.schedule.step_update(update + 1)
    return Trained(left_by(run, totals), outcomes, run.task.updates)


def on_device(run, launch=None):
    """The same by the step that does not read.

    Args:
        launch: Takes the place of the function that makes an update.
    """
    totals = Totals(run.accelerator.device)
    step, outcomes = DeviceStep(run, totals), []
    if launch is not None:
        step.whole = launch(step)
    run.wrapped.train()
    for update, batch in enumerate(batches(run)):
        outcomes += step([Parts((batch.input, batch.target), batch.indices)], update, nothing_requested).outcomes
        if run.schedule is not None:
            run.schedule.step_update(update + 1)
    outcomes += step.settle()
    return Trained(left_by(run, totals), outcomes, run.task.updates)


def taped(step):
    """Makes updates as CUDA graphs do: each kind eagerly at first, then from a tape of its kernels."""
    whole, eager, tapes = step.whole, {}, {}

    def launch(*tensors):
        kind = step.run.task.perturbs()
        eager[kind] = eager.get(kind, 0) + 1
        if kind in tapes:
            tape, static = tapes[kind]
            for place, tensor in zip(static, tensors, strict=True):
                place.copy_(tensor)
            tape.replay()
        elif eager[kind] < 3 or not step.run.task.is_settled():
            whole(*tensors)
        else:
            static = [tensor.clone() for tensor in tensors]
            with Tape() as tape:
                whole(*static)
            tapes[kind] = tape, static

    return launch


def assert_same(found, expected):
    """Bit for bit."""
    assert found.outcomes == expected.outcomes
    assert found.counted == expected.counted
    assert found.tensors.keys() == expected.tensors.keys()
    different = [name for name, value in expected.tensors.items() if not torch.equal(found.tensors[name], value)]
    assert not different
