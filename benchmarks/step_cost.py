"""Measures what a training step costs, relative to a standard step: time, operations and memory.

    python benchmarks/step_cost.py [--quick] [--models resnet50] [--tasks alfa] [--pairs 11] [--device cuda] [--amp]
        [--torchcompile] [--cuda-graph] [--gpu] [--channels-last]

--gpu measures other workloads, with batches that fill a GPU, and several steps at a time. --cuda-graph runs each step
as a CUDA graph; on a CPU it changes nothing.

For methods that perturb features, 'over the floor' relates operations and time to the least that an exact step needs:
3F + max T_i + sum (2K + 1) T_i, with F the forward cost of the model and T_i that of the part after block i.
"""

import argparse
import copy
import gc
import statistics
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Iterator, Optional

import measure
import timm
import torch

import timm_alfa
from timm_alfa.replay.flops import count_flops, floor
from timm_alfa.tasks.options.alfa import SearchConfig
from timm_alfa.training.update.graphs import WARM_UP, Graphs, on_stream, own_stream, search_kernels
from timm_alfa.utils.plotting import BLUE, GRAY, ORANGE, add_legend, new_figure, png


@dataclass(frozen=True)
class Workload:
    """What a step is measured on.

    Attributes:
        model: Name of the model.
        size: Side of its images in pixels.
        batch: Batch size.
    """

    model: str
    size: int
    batch: int


WORKLOADS = (
    Workload('resnet18_cifar', 32, 16),
    Workload('resnet56s', 32, 64),
    Workload('resnet50', 224, 4),
    Workload('efficientnet_b0', 224, 8),
    Workload('vit_tiny_patch16_224', 224, 4),
)
GPU_WORKLOADS = (
    Workload('resnet20s', 32, 128),
    Workload('resnet18_cifar', 32, 128),
    Workload('resnet50', 224, 128),
    Workload('efficientnet_b0', 224, 256),
    Workload('vit_tiny_patch16_224', 224, 256),
)
AT_A_TIME = 20  # steps, where one takes about a millisecond
SWEPT = WORKLOADS[1]  # the cheapest; its stages cost the same, as those of ResNet-18 do
METHODS = {
    'alfa': {'task': 'alfa'},
    'l_alfa': {'task': 'l_alfa', 'mode': 'separate'},
    'l_alfa joint': {'task': 'l_alfa', 'mode': 'joint'},
    'noise': {'task': 'noise'},
    'moex': {'task': 'moex'},
    'advprop': {'task': 'advprop'},
    'adv_train': {'task': 'adv_train'},
    'sam': {'task': 'sam'},
    'isda': {'task': 'isda', 'ramp': 1},
}
BLOCKS = ('last', '3', '2', '1', 'all', 'units:9')
STEPS = (1, 2, 3, 5, 7, 10)
BATCHES = (32, 64, 128, 256, 512)


class Step:
    """A whole training step of one method, optimizer included, on a batch of noise.

    Args:
        model: Any classifier of 10 classes.
        size: Side of the images in pixels.
        batch: Batch size.
        task: Name of the method.
        device: Where the model is.
        amp: Autocast to bfloat16.
        channels_last: Memory format of the images.
        options: The method's options.
    """

    def __init__(
        self, model, size: int, batch: int, task: str, device: str, amp: bool, channels_last: bool = False, **options
    ):
        self.method = timm_alfa.create_task(task, model, **options)
        groups = [{'params': self.method.get_eval_model().parameters()}, *self.method.extra_param_groups()]
        self.optimizer = torch.optim.SGD(groups, lr=1e-4, momentum=0.9, fused=device == 'cuda')
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.input = torch.randn(batch, 3, size, size, device=device).to(memory_format=layout)
        self.target = torch.randint(0, 10, (batch,), device=device)
        self.precision = partial(torch.autocast, device, torch.bfloat16) if amp else nullcontext

    def __call__(self) -> None:
        self.train(self.input, self.target)

    def train(self, input: torch.Tensor, target: torch.Tensor) -> None:
        """A step on some batch."""
        with self.precision():
            loss = self.method(input, target)['loss']
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.post_step()

    def floor(self) -> Optional[int]:
        """The least operations an exact step needs; None unless the method searches from zero."""
        config = self.method.config
        if not isinstance(config, SearchConfig) or config.random_start or config.bn == 'aux':
            return None
        blocks = self.method.blocks
        groups = [blocks] if config.mode == 'joint' else [[name] for name in blocks]
        return floor(self.method.model, groups, self.input, steps=config.steps)


class GraphedStep:
    """A step as a CUDA graph; without a GPU the step itself.

    It holds less than an update of `train.py --cuda-graph`: batches are ready, the learning rate is a constant, nothing
    is summed or undone. So the ratio to standard training is a little larger than it is there.

    Args:
        step: A step that has been made once, on the stream.
        stream: Current in every call; None without a GPU.
    """

    def __init__(self, step: Step, stream: Optional['torch.cuda.Stream']):
        self.step, self.graphs = step, None
        if stream is not None:
            self.graphs = Graphs(step.train, stream, step.method.is_settled)
        for _ in range(WARM_UP + 1):
            self()

    def __call__(self) -> None:
        if self.graphs is None:
            self.step()
        else:
            self.graphs((self.step.input, self.step.target), kind='step', seed=(0,))


def repeated(step: Callable[[], None], times: int) -> Callable[[], None]:
    """Several steps as one call."""

    def call() -> None:
        for _ in range(times):
            step()

    return call


def compare(workload: Workload, variants: dict[str, dict], args) -> list[dict]:
    """Measures standard training and some variants in turns; one row each."""
    if not args.cuda_graph:
        return compare_on(None, workload, variants, args)
    search_kernels(torch.device(args.device))
    stream = own_stream(torch.device(args.device))
    with on_stream(stream):  # all of it: autograd remembers on which stream a parameter was first used
        return compare_on(stream, workload, variants, args)


def compare_on(
    stream: Optional['torch.cuda.Stream'], workload: Workload, variants: dict[str, dict], args
) -> list[dict]:
    """As `compare`, on a stream that is current."""
    model = timm.create_model(workload.model, num_classes=10).to(args.device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    variants = {'standard': {'task': 'standard'}, **variants}

    common = dict(device=args.device, amp=args.amp, channels_last=args.channels_last)

    # compiled code stays with a model, so each variant gets its own
    models = [copy.deepcopy(model) if args.torchcompile else model for _ in variants]
    steps = [
        Step(own, workload.size, workload.batch, **common, **options)
        for own, options in zip(models, variants.values(), strict=True)
    ]
    for step in steps:
        step()  # the first step also records what a replay needs
    flops, least = [count_flops(step) for step in steps], [step.floor() for step in steps]
    for step in steps if args.torchcompile else ():
        step.method.compile()
        step()  # compiles; the warm-up compiles what the first step could not

    # measure all of them
    peaks = [measure.peak_bytes(step) for step in steps]  # without graphs, whose memory is never free
    timed = [GraphedStep(step, stream) for step in steps] if args.cuda_graph else steps
    times = measure.interleave([repeated(step, args.at_a_time) for step in timed], args.pairs)

    # one row each, relative to the standard step
    rows = []
    for i, name in enumerate(variants):
        row = {
            'model': workload.model,
            'batch': workload.batch,
            'variant': name,
            'ms': 1000 * statistics.median(times[i]) / args.at_a_time,
            'time': measure.ratio(times[i], times[0]),
            'FLOPs': flops[i] / flops[0],
            'memory': peaks[i] / peaks[0],
        }
        row['FLOPs over the floor'] = flops[i] / least[i] if least[i] else None
        row['time over the floor'] = row['time'] * flops[0] / least[i] if least[i] else None
        rows.append(row)
        print(row, flush=True)
    gc.collect()
    return rows


def methods(args) -> Iterator[list[dict]]:
    """Measures all requested methods on one requested model after the other; yields all rows so far."""
    wanted = {name: options for name, options in METHODS.items() if options['task'] in args.tasks}
    rows: list[dict] = []
    for workload in args.workloads:
        rows += compare(workload, wanted, args)
        yield rows


def sweeps(args) -> dict[str, list[dict]]:
    """Measures ALFA on a small network with different numbers of steps, blocks and batch sizes."""
    steps = {f'K={k}': {'task': 'alfa', 'blocks': '2', 'steps': k} for k in STEPS}
    last = {f'last, K={k}': {'task': 'alfa', 'steps': k} for k in STEPS}
    blocks = {name: {'task': 'alfa', 'blocks': name} for name in BLOCKS}
    batches = [compare(Workload(SWEPT.model, SWEPT.size, batch), {'alfa': {'task': 'alfa'}}, args) for batch in BATCHES]
    return {
        'Steps of the search (stage 2, and last)': compare(SWEPT, {**steps, **last}, args),
        'Blocks': compare(SWEPT, blocks, args),
        'Batch size': [row for rows in batches for row in rows if row['variant'] != 'standard'],
    }


def plot(sections: dict[str, list[dict]], path: Path) -> None:
    """Draws the cost against K and for each block."""
    figure, (steps, blocks) = new_figure(2, width=10)
    _plot_steps(steps, sections['Steps of the search (stage 2, and last)'])
    rows = [row for row in sections['Blocks'] if row['variant'] != 'standard']
    _plot_blocks(blocks, rows)
    figure.suptitle(f'{rows[0]["model"]}, batch {rows[0]["batch"]}', fontsize=10)
    path.write_bytes(png(figure))


def _plot_steps(axis, rows: list[dict]) -> None:
    for label, prefix, color in (('stage 2', 'K=', BLUE), ('last stage', 'last, K=', ORANGE)):
        chosen = [row for row in rows if row['variant'].startswith(prefix)]
        steps = [int(row['variant'].removeprefix(prefix)) for row in chosen]
        axis.plot(steps, [row['time'] for row in chosen], 'o-', color=color, label=f'{label}, time')
        axis.plot(steps, [row['FLOPs'] for row in chosen], '--', color=color, label=f'{label}, FLOPs')
    axis.set(xlabel='steps K', ylabel='cost of a step, relative to standard', ylim=(0, None))
    add_legend(axis)


def _plot_blocks(axis, rows: list[dict]) -> None:
    places = range(len(rows))
    axis.bar([place - 0.2 for place in places], [row['time'] for row in rows], 0.4, color=BLUE, label='time')
    axis.bar([place + 0.2 for place in places], [row['FLOPs'] for row in rows], 0.4, color=ORANGE, label='FLOPs')
    axis.axhline(1, color=GRAY, linewidth=0.8)
    axis.set_xticks(list(places), [row['variant'] for row in rows])
    axis.set(xlabel='blocks (K = 5)')
    add_legend(axis)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(w.model for w in (*WORKLOADS, *GPU_WORKLOADS)))
    measure.add_results(parser)
    parser.add_argument('--models', nargs='+', choices=names, default=names)
    tasks = list(dict.fromkeys(options['task'] for options in METHODS.values()))
    parser.add_argument('--tasks', nargs='+', choices=tasks, default=tasks)
    parser.add_argument('--pairs', type=int, default=11)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--amp', action='store_true', help='autocast to bfloat16')
    parser.add_argument('--torchcompile', action='store_true', help='compile each method, as train.py does')
    parser.add_argument('--quick', action='store_true', help='methods only, no sweeps')
    parser.add_argument(
        '--cuda-graph', action=argparse.BooleanOptionalAction, default=False, help='run each step as a CUDA graph'
    )
    parser.add_argument('--channels-last', action='store_true', help='use the channels_last memory layout')
    parser.add_argument('--gpu', action='store_true', help='workloads with batches that fill a GPU')
    args = parser.parse_args()

    args.at_a_time = AT_A_TIME if args.gpu else 1
    known = {w.model: w for w in (GPU_WORKLOADS if args.gpu else WORKLOADS)}
    args.workloads = [known[model] for model in args.models if model in known]
    flags = [flag for flag in ('gpu', 'amp', 'channels_last', 'torchcompile', 'cuda_graph') if getattr(args, flag)]
    name, title = '_'.join(('step_cost', *flags)), 'Cost of a step relative to a standard step'

    sections = {}
    for rows in methods(args):  # each model's rows are written as they come: time may end
        sections['Methods'] = rows
        measure.write(args.results, name, title, sections)
    if not args.quick:
        sections.update(sweeps(args))
        path = measure.write(args.results, name, title, sections)
        plot(sections, path.with_suffix('.png'))


if __name__ == '__main__':
    main()
