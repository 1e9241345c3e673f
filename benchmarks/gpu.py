"""Everything that needs a GPU, in one or two calls of a given length: tests, rates, cost ratios, and paired runs.

    python benchmarks/gpu.py --rehearse --results DIR                     # on a CPU, tiny, all parts
    python benchmarks/gpu.py --rehearse --no-cuda-graph --results DIR     # as if nothing could be captured
    python benchmarks/gpu.py --parts check tests rates ratios --seconds 300 --results DIR
    python benchmarks/gpu.py --parts runs pack compiled --seconds 500 --results DIR --dataset hfds/CIFAR10_FOLDER

Each part is a process with its own limit. What it finds is in DIR/PART.jsonl, line by line as it is found, and its
log in DIR/PART.log; a part that fails, or takes too long, leaves the others alone. After each part the tables and logs
go into ARCHIVES/tables.tar.gz, and `pack` puts what the runs left into at most 4 archives of 15 MiB next to it.

- check: whether standard training and ALFA can be captured at all. If not, all later parts, also those of a second
  call, run without graphs: one rate and ratio, and six processes with half the epochs.
- tests: replays equal eager updates, two runs together equal each alone, and no replay waits (pytest).
- rates: images per second of ResNet-20s for 1, 6 and 12 runs together, in bfloat16 and float32, channels_last and not,
  and their share of the floor that memory bandwidth sets.
- ratios: ALFA over standard training, eager and as graphs (step_cost.py), for resnet20s, resnet18_cifar and resnet50.
- runs: 200 epochs of ResNet-20s on CIFAR-10 with a tenth of the images held out, the test split read once: standard,
  standard with its loss doubled, and ALFA, the same seeds in each; as many whole seeds as fit by the rates measured,
  or half the epochs of one if none does. `--together 1` runs them one after the other, if the tests found that runs
  disturb each other. Runs of an earlier call whose folders lie in WORK continue.
- pack: records, best weights, and the states of runs that have not ended.
- compiled: the ratio for resnet18_cifar with --torchcompile, in what time is left.

On a machine without a network the packages travel as wheels, and CIFAR-10's Parquet files in two halves, one before
each of two calls. Both command lines, with HALF for the folder of the uploaded half and BACK for the folder whose files
are brought back:

    W=/dev/shm; [ $(df -k --output=avail $W | tail -n 1) -gt 2000000 ] || W=/tmp; mkdir -p $W/cifar10/data; \\
        mv HALF/*.parquet $W/cifar10/data/; python -m pip install -q --no-index --no-deps --target /tmp/site \\
        wheels/*.whl; PYTHONPATH=/tmp/site:$PWD CUDA_DEVICE_MAX_CONNECTIONS=32 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 \\
        python benchmarks/gpu.py --parts check tests rates ratios --seconds 300 --results $W/results --work $W/work \\
        --archives BACK

    W=/dev/shm; [ -d $W/results ] || W=/tmp; mv HALF/*.parquet $W/cifar10/data/; PYTHONPATH=/tmp/site:$PWD \\
        CUDA_DEVICE_MAX_CONNECTIONS=32 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 python benchmarks/gpu.py --parts runs \\
        pack compiled --seconds 500 --results $W/results --work $W/work --archives BACK --dataset hfds/$W/cifar10

The run folders that come back become records by `python studies/run.py RECIPES --seeds N --mixed-precision bf16
--output FOLDER`, with `--epochs-scale 0.5` if the schedule was halved.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        name: As in `--parts`.
        share: Of the time that is left when it starts, as a weight among the parts that have not run.
        words: What its process is called with.
        environment: Variables of its process.
        grace: Seconds of its time in which it saves what it has, after a signal.
        signal: That signal.
        least: Seconds without which it is not started.
        only_graphs: It shows nothing if updates cannot be captured.
        shown: Characters of its log that are printed.
    """

    name: str
    share: float
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    grace: float = 2
    signal: int = signal.SIGTERM
    least: float = 0
    only_graphs: bool = False
    shown: int = 1200


def parts(args: argparse.Namespace) -> list[Part]:
    """The parts that were requested, in order."""
    tests = HERE.parent / 'tests' / 'training' / 'update' / 'test_on_gpu.py'
    own = {'check': 'gpu_parts.py', 'rates': 'gpu_parts.py', 'runs': 'gpu_runs.py', 'pack': 'gpu_runs.py'}
    common = ['--results', str(args.results), '--work', str(args.work), '--dataset', args.dataset, '--cuda-graph']
    common += ['--archives', str(args.archives)]
    common += ['--rehearse'] if args.rehearse else []
    common += ['--together', str(args.together)] if args.together else []
    common += ['--seeds', str(args.seeds)] if args.seeds else []
    words = {name: (str(HERE / script), name, *common) for name, script in own.items()}
    bf16, full = (('ACCELERATE_MIXED_PRECISION', value) for value in ('bf16', 'no'))

    cost = (str(HERE / 'step_cost.py'), '--quick', '--tasks', 'alfa', '--results', str(args.results))
    cost += ('--pairs', '1') if args.rehearse else ('--gpu', '--amp', '--channels-last', '--pairs', '7')
    models = ('--models', *(('resnet56s',) if args.rehearse else ('resnet50', 'resnet18_cifar', 'resnet20s')))
    small = ('--models', 'resnet18_cifar')
    hang = ('-o', 'faulthandler_timeout=15')  # shows where a test hangs before the part's time is up
    pytest = ('-m', 'pytest', '-v', '-n', '0', '-rs', '--tb=short', '--maxfail=6', *hang, str(tests))
    deterministic = (('CUBLAS_WORKSPACE_CONFIG', ':4096:8'),)
    interrupt = {'grace': 5, 'signal': signal.SIGINT}  # pytest then prints its summary
    known = [
        Part('check', 60, words['check'], (bf16,)),  # first imports take long; what is left goes to the others
        Part('tests', 90, pytest, deterministic, only_graphs=True, shown=4000, **interrupt),
        Part('rates', 40, words['rates'], (bf16,)),
        Part('rates', 20, words['rates'], (full,)),
        Part('ratios', 70, (*cost, *models, '--cuda-graph'), only_graphs=True),
        Part('ratios', 20, (*cost, *small)),
        Part('runs', 400, words['runs'], (bf16,), grace=25),
        Part('pack', 15, words['pack']),
        Part('compiled', 5, (*cost, *small, '--cuda-graph', '--torchcompile'), only_graphs=True, least=50),
    ]
    if args.rehearse:  # compiling takes a CPU minutes
        known = [replace(part, share=1) for part in known if part.name != 'compiled']
    return [part for part in known if part.name in args.parts]


def graphs_work(results: Path) -> bool:
    """Whether updates can be captured: what `check` found, here or in an earlier call; if it never began, they may."""
    path = results / 'check.jsonl'
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return not rows or rows[-1].get('all', False)


def without_graphs(part: Part) -> Optional[Part]:
    """A part that captures nothing; None if it then shows nothing."""
    if part.only_graphs:
        return None
    return replace(part, words=tuple('--no-cuda-graph' if word == '--cuda-graph' else word for word in part.words))


def take_interrupts() -> None:
    """Lets SIGINT end a process again, which a shell ignores in what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(part: Part, seconds: float, results: Path) -> str:
    """Runs a part in a separate process for so many seconds; how it ended."""
    environment = {**os.environ, **dict(part.environment), 'GPU_SECONDS': f'{seconds - part.grace:.0f}'}
    with (results / f'{part.name}.log').open('a') as log:
        process = subprocess.Popen(  # nosec B603  # a script of this repository, without a shell
            [sys.executable, *part.words],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=take_interrupts,
        )
        for number, wait in ((part.signal, seconds - part.grace), (signal.SIGKILL, part.grace), (None, 10)):
            try:
                code = process.wait(max(1.0, wait))
                return 'done' if code == 0 else f'exit {code}'
            except subprocess.TimeoutExpired:
                if number is not None:
                    os.killpg(process.pid, number)
    return 'cannot be killed'


def tail(log: Path, characters: int) -> str:
    """The end of a log."""
    return log.read_text(errors='replace')[-characters:] if log.exists() else ''


def collect(results: Path, archives: Path) -> None:
    """Puts all tables and logs into one archive, which is complete at any time."""
    unfinished = archives / 'tables.tmp'
    with tarfile.open(unfinished, 'w:gz') as archive:
        for path in sorted(results.iterdir()):
            if path.suffix in ('.jsonl', '.log', '.txt', '.md', '.json'):
                archive.add(path, arcname=path.name)
    os.replace(unfinished, archives / 'tables.tar.gz')


def run_in_turn(waiting: list[Part], args: argparse.Namespace) -> int:
    """Runs parts one after the other within `args.seconds`; how many failed."""
    deadline = time.monotonic() + args.seconds
    failed = 0
    while waiting:
        part, share = waiting[0], sum(each.share for each in waiting)
        waiting = waiting[1:]

        # without graphs if there can be none
        chosen: Optional[Part] = part
        if part.name != 'check' and not (graphs_work(args.results) if args.cuda_graph is None else args.cuda_graph):
            chosen = without_graphs(part)

        # its process
        limit = (deadline - time.monotonic()) * part.share / share
        began = time.monotonic()
        if chosen is None:
            end = 'left out: it needs graphs'
        elif limit < max(part.least, part.grace + 1):
            end = 'left out: no time'
            failed += not part.least
        else:
            end = run(chosen, limit, args.results)
            failed += end != 'done'

        # what it found
        line = f'{part.name}: {end} after {time.monotonic() - began:.0f} of {limit:.0f} s'
        print(f'{tail(args.results / f"{part.name}.log", part.shown)}\n{line}', flush=True)
        with (args.results / 'parts.txt').open('a') as file:
            file.write(line + '\n')
        collect(args.results, args.archives)
    return failed


def main() -> None:
    names = ('check', 'tests', 'rates', 'ratios', 'runs', 'pack', 'compiled')
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=names, default=names)
    parser.add_argument('--seconds', type=float, default=500, help='length of the call, all parts together')
    parser.add_argument('--results', type=Path, required=True, help='folder of tables, logs and archives')
    parser.add_argument('--work', type=Path, help='folder of the runs (default: RESULTS/../gpu-work)')
    parser.add_argument('--archives', type=Path, help='folder of the archives (default: RESULTS)')
    parser.add_argument('--dataset', default='hfds/uoft-cs/cifar10', help='CIFAR-10, by Hub id or folder')
    parser.add_argument('--together', type=int, help='most runs at a time (default: 12)')
    parser.add_argument('--seeds', type=int, help='number of seeds (default: as many as fit)')
    parser.add_argument(
        '--cuda-graph', action=argparse.BooleanOptionalAction, help='capture updates (default: as `check` found)'
    )
    parser.add_argument('--rehearse', action='store_true', help='tiny, on a CPU')
    args = parser.parse_args()

    args.work = args.work or args.results.resolve().parent / 'gpu-work'
    args.archives = args.archives or args.results
    for folder in (args.results, args.archives):
        folder.mkdir(parents=True, exist_ok=True)
    failed = run_in_turn(parts(args), args)
    print(f'{failed} parts failed; see {args.results}', flush=True)
    sys.exit(min(failed, 1))


if __name__ == '__main__':
    main()
