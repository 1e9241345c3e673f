"""Everything that needs a GPU, in one or two calls of a given length: tests, rates, cost ratios, and paired runs.

    python benchmarks/gpu.py --rehearse --results DIR                     # on a CPU, tiny, all parts
    python benchmarks/gpu.py --parts tests rates ratios --seconds 200 --results DIR
    python benchmarks/gpu.py --parts runs pack --seconds 520 --results DIR --dataset hfds/CIFAR10_FOLDER

Each part is a process with its own limit. What it finds is in DIR/PART.jsonl, line by line as it is found, and its
log in DIR/PART.log; a part that fails, or takes too long, leaves the others alone. After each part the tables and logs
go into ARCHIVES/tables.tar.gz, and `pack` puts what the runs left into at most 4 archives of 15 MiB next to it.

- tests: replays equal eager updates, two runs together equal each alone, and no replay waits (pytest).
- rates: images per second of ResNet-20s for 1, 4, 8 and 12 runs together, in bfloat16 and float32, and their share of
  the floor that memory bandwidth sets.
- ratios: ALFA over standard training, eager and as graphs (step_cost.py), for resnet20s, resnet18_cifar and resnet50.
- runs: 200 epochs of ResNet-20s on CIFAR-10 with a tenth of the images held out, the test split read once: standard,
  standard with its loss doubled, and ALFA, the same seeds in each; as many whole seeds as fit.

On a machine without a network the packages travel as wheels, and CIFAR-10's Parquet files in two halves, one before
each of two calls. Both command lines, with HALF for the folder of the uploaded half and BACK for the folder whose files
are brought back:

    python -m pip install -q --no-index --no-deps --target /tmp/site wheels/*.whl && export PYTHONPATH=/tmp/site:$PWD \\
        CUDA_DEVICE_MAX_CONNECTIONS=32 PYTHONUNBUFFERED=1 && mkdir -p /dev/shm/cifar10/data && \\
        mv HALF/*.parquet /dev/shm/cifar10/data/ && python benchmarks/gpu.py --parts tests rates ratios \\
        --seconds 200 --results /dev/shm/results --work /dev/shm/work --archives BACK

    export PYTHONPATH=/tmp/site:$PWD CUDA_DEVICE_MAX_CONNECTIONS=32 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 && \\
        mv HALF/*.parquet /dev/shm/cifar10/data/ && python benchmarks/gpu.py --parts runs pack --seconds 500 \\
        --results /dev/shm/results --work /dev/shm/work --archives BACK --dataset hfds//dev/shm/cifar10
"""

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        name: As in `--parts`.
        share: Of the time that is left when it starts, as a weight among the parts that have not run.
        words: What its process is called with.
        environment: Variables of its process.
        grace: Seconds of its time in which it saves what it has, after SIGTERM.
    """

    name: str
    share: float
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    grace: float = 2


def parts(args: argparse.Namespace) -> list[Part]:
    """The parts that were requested, in order."""
    tests = HERE.parent / 'tests' / 'training' / 'update' / 'test_on_gpu.py'
    scripts = {name: (str(HERE / 'gpu_parts.py'), name) for name in ('rates', 'runs', 'pack')}
    common = ['--results', str(args.results), '--work', str(args.work), '--dataset', args.dataset]
    common += ['--archives', str(args.archives)]
    common += ['--rehearse'] if args.rehearse else []
    bf16, full = (('ACCELERATE_MIXED_PRECISION', value) for value in ('bf16', 'no'))

    cost = (str(HERE / 'step_cost.py'), '--quick', '--tasks', 'alfa', '--results', str(args.results))
    if args.rehearse:
        cost += ('--models', 'resnet56s', '--pairs', '1')
    else:
        cost += ('--gpu', '--amp', '--channels-last', '--models', 'resnet20s', 'resnet18_cifar', 'resnet50')
        cost += ('--pairs', '7')
    hang = ('-o', 'faulthandler_timeout=15')  # shows where a test hangs before the part's time is up
    known = [
        Part(
            'tests',
            45,
            ('-m', 'pytest', '-v', '-n', '0', '-rs', '--tb=short', '--maxfail=6', *hang, str(tests)),
            (('CUBLAS_WORKSPACE_CONFIG', ':4096:8'),),
        ),
        Part('rates', 40, (*scripts['rates'], *common), (bf16,)),
        Part('rates', 30, (*scripts['rates'], *common), (full,)),
        Part('ratios', 30, (*cost, '--cuda-graph')),
        Part('ratios', 20, cost),
        Part('ratios', 20, (*cost, '--cuda-graph', '--torchcompile')),
        Part('runs', 400, (*scripts['runs'], *common), (bf16,), grace=25),
        Part('pack', 15, (*scripts['pack'], *common)),
    ]
    if args.rehearse:  # compiling takes a CPU a minute
        known = [replace(part, share=1) for part in known if '--torchcompile' not in part.words]
    return [part for part in known if part.name in args.parts]


def run(part: Part, seconds: float, results: Path) -> str:
    """Runs a part in a separate process for so many seconds; how it ended."""
    environment = {**os.environ, **dict(part.environment), 'GPU_SECONDS': f'{seconds - part.grace:.0f}'}
    with (results / f'{part.name}.log').open('a') as log:
        process = subprocess.Popen(  # nosec B603  # a script of this repository, without a shell
            [sys.executable, *part.words], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        for number, wait in ((signal.SIGTERM, seconds - part.grace), (signal.SIGKILL, part.grace), (None, 10)):
            try:
                code = process.wait(max(1.0, wait))
                return 'done' if code == 0 else f'exit {code}'
            except subprocess.TimeoutExpired:
                if number is not None:
                    os.killpg(process.pid, number)
    return 'cannot be killed'


def tail(log: Path, characters: int = 1500) -> str:
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


def main() -> None:
    names = ('tests', 'rates', 'ratios', 'runs', 'pack')
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=names, default=names)
    parser.add_argument('--seconds', type=float, default=500, help='length of the call, all parts together')
    parser.add_argument('--results', type=Path, required=True, help='folder of tables, logs and archives')
    parser.add_argument('--work', type=Path, help='folder of the runs (default: RESULTS/../gpu-work)')
    parser.add_argument('--archives', type=Path, help='folder of the archives (default: RESULTS)')
    parser.add_argument('--dataset', default='hfds/uoft-cs/cifar10', help='CIFAR-10, by Hub id or folder')
    parser.add_argument('--rehearse', action='store_true', help='tiny, on a CPU')
    args = parser.parse_args()

    args.work = args.work or args.results.resolve().parent / 'gpu-work'
    args.archives = args.archives or args.results
    for folder in (args.results, args.archives):
        folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + args.seconds
    waiting = parts(args)
    failed = 0
    while waiting:
        part = waiting[0]
        left = deadline - time.monotonic()
        limit = left * part.share / sum(each.share for each in waiting)
        waiting = waiting[1:]
        began = time.monotonic()
        end = run(part, limit, args.results) if limit > part.grace + 1 else 'no time left'
        failed += end != 'done'
        line = f'{part.name}: {end} after {time.monotonic() - began:.0f} of {limit:.0f} s'
        print(f'{tail(args.results / f"{part.name}.log")}\n{line}', flush=True)
        with (args.results / 'parts.txt').open('a') as file:
            file.write(line + '\n')
        collect(args.results, args.archives)
    print(f'{failed} parts failed; see {args.results}', flush=True)
    sys.exit(min(failed, 1))


if __name__ == '__main__':
    main()
