"""What gpu.py trains and brings back: `python benchmarks/gpu_runs.py {runs,pack} ...`.

Run folders are named as `studies/run.py --output` names them, which makes records of those that are finished, and
resumes the others.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional, Sequence

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for studies/

from gpu_parts import MIB, MOST, parse, write_line

from studies.jobs import Job, train_command
from studies.recipes import RECIPES
from timm_alfa.training.checkpoint.store import state_folders
from timm_alfa.training.options.train_args import parse_args
from timm_alfa.training.run import Run
from timm_alfa.training.together import prepare_together, train_together
from timm_alfa.utils.console import setup_logging

ROOT = Path(__file__).resolve().parents[1]
ARCHIVES, ARCHIVE_SIZE = 4, 15 * MIB
EPOCHS, IMAGES = 200, 45_000
EPOCH_END = 0.03  # seconds of a run for validation and saving: 0.02 on an H200
USED = 0.95  # of the time that is left, by runs
ALFA_COST = 1.2  # relative to standard training, where it was not measured
RECIPE_OF = {
    'standard': 'cifar10_resnet20s',
    'doubled': 'cifar10_resnet20s_double',
    'alfa': 'cifar10_resnet20s_alfa_step0.5',
}
TINY = ('--model', 'test_resnet', '--img-size', '32', '--train-subset', '96', '-b', '16', '--epochs', '1')
TINY_ARMS = {
    'standard': (*TINY, '--task', 'standard', '--val-fraction', '0.1'),
    'doubled': (*TINY, '--task', 'standard', '--standard-weight', '2', '--val-fraction', '0.1'),
    'alfa': (*TINY, '--task', 'alfa', '--alfa-step-size', '0.5/255', '--val-fraction', '0.1'),
}


# how many


class Plan(NamedTuple):
    """What to train.

    Attributes:
        seeds: Of each arm.
        scale: Of the schedule: 1, or 0.5 for half of its epochs.
        reason: Why.
        channels_last: Memory format.
    """

    seeds: int
    scale: float
    reason: str
    channels_last: bool = True


def make_plan(args: argparse.Namespace, seconds: float) -> Plan:
    """As many seeds of all arms as fit into a time, by the rates that were measured; if none does, half the epochs."""
    if args.rehearse:
        return Plan(args.seeds or 1, 1.0, 'a rehearsal')
    if not args.cuda_graph:
        return Plan(args.seeds or 2, 0.5, 'six processes without graphs train half the epochs')
    rows = [row for row in _rows(args.results / 'rates.jsonl') if row['precision'] == 'bf16']
    rows, layout = of_the_faster_format(rows)
    if args.seeds:
        return Plan(args.seeds, 1.0, 'as given', layout)
    if not any(row['task'] == 'standard' for row in rows):
        return Plan(1, 1.0, 'no rates were measured')
    for scale in (1.0, 0.5):
        for seeds in range(MOST // len(RECIPE_OF), 0, -1):
            cost = cost_of(rows, seeds, scale, args.together)
            if cost <= USED * seconds:
                return Plan(seeds, scale, f'{cost:.0f} s by the rates measured, of {seconds:.0f} s', layout)
    return Plan(1, 0.5, f'NOT EVEN half the epochs of one seed fit: {cost:.0f} s by the rates measured', layout)


def of_the_faster_format(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    """The rates measured in the memory format that is faster, and whether that is channels_last, as it is in doubt.

    Both are compared at the most runs together that both were measured with.
    """
    rate = {(row['channels_last'], row['together']): row['images_per_second'] for row in rows if row['task'] == 'alfa'}
    both = [together for channels_last, together in rate if channels_last and (False, together) in rate]
    last = not both or rate[True, max(both)] >= rate[False, max(both)]
    return [row for row in rows if row['channels_last'] == last], last


def cost_of(rows: Sequence[dict[str, Any]], seeds: int, scale: float, together: int) -> float:
    """Seconds that some seeds of all arms take.

    Args:
        rows: Rates that were measured.
        scale: Of the schedule.
        together: Most runs at a time.
    """
    runs = seeds * len(RECIPE_OF)
    standard = rate_of(rows, 'standard', min(runs, together))
    alfa = rate_of(rows, 'alfa', min(runs, together)) or standard / ALFA_COST
    return scale * EPOCHS * (seeds * IMAGES * (2 / standard + 1 / alfa) + runs * EPOCH_END)


def rate_of(rows: Sequence[dict[str, Any]], task: str, together: int) -> Optional[float]:
    """Images per second of the most runs together, at most `together`; None if that was not measured."""
    found = [row for row in rows if row['task'] == task and row['together'] <= together]
    return max(found, key=lambda row: row['together'])['images_per_second'] if found else None


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# runs


def command_lines(args: argparse.Namespace, plan: Plan) -> dict[str, list[str]]:
    """What train.py is called with for each run, by the run's name; all arms of a seed before the next seed."""
    common = ['--cuda-graph' if args.cuda_graph else '--no-cuda-graph']
    common += ['--channels-last'] if plan.channels_last else []
    common += ['--checkpoint-every', '1000m', '--workers', '8']
    words = {}
    for seed in range(plan.seeds):
        for arm, recipe in RECIPE_OF.items():
            if args.rehearse:
                name, own = f'{arm}-s{seed}', [*TINY_ARMS[arm], '--seed', str(seed), '--output', str(args.work)]
                own += ['--experiment', name, '--resume', 'auto']
            else:
                job = Job(RECIPES[recipe], seed, plan.scale, 'bf16')
                name, own = job.folder, [*train_command(job, args.work)[2:], '--dataset', args.dataset, '-vb', '5000']
            words[name] = [*own, *common]
    return words


def runs(args: argparse.Namespace) -> None:
    """Trains all arms with the same seeds: together, or without graphs each in a process."""
    began, limit = time.monotonic(), float(os.environ.get('GPU_SECONDS', '400'))
    setup_logging()
    plan = make_plan(args, limit - 30)
    words = command_lines(args, plan)
    print(f'{len(words)} runs with {plan.seeds} seeds, schedule x {plan.scale:g}: {plan.reason}', flush=True)
    print('memory format:', 'channels_last' if plan.channels_last else 'contiguous', flush=True)
    print(f'{args.together if args.cuda_graph else len(words)} at a time', flush=True)
    if not args.cuda_graph:
        in_processes(args, words)
        return

    def ended(run: Run, result: Any) -> None:
        record = result if isinstance(result, dict) else {'status': 'failed', 'error': str(result)}
        write_line(args.results, 'runs', {'name': run.config.run.experiment, **record})

    for group in _groups(list(words.values()), args.together):
        prepared = prepare_together([parse_args(each) for each in group])
        print(f'{time.monotonic() - began:.0f} s after the start', flush=True)
        results = train_together(prepared, ended)
        if any(isinstance(result, dict) and result['status'] == 'stopped' for result in results):
            return


def _groups(items: list, size: int) -> Iterator[list]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def in_processes(args: argparse.Namespace, words: dict[str, list[str]], script: Path = ROOT / 'train.py') -> None:
    """Trains each run in a process; SIGTERM comes to the whole group of processes, whose runs save their states."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    processes = {}
    for name, own in words.items():
        with (args.results / f'{name}.log').open('a') as log:
            processes[name] = subprocess.Popen(  # nosec B603  # a script of this repository, without a shell
                [sys.executable, str(script), *own], stdout=log, stderr=subprocess.STDOUT
            )
    for name, process in processes.items():
        code = process.wait()
        result = args.work / name / 'result.json'
        record = json.loads(result.read_text()) if result.exists() else {'status': 'unfinished', 'code': code}
        write_line(args.results, 'runs', {'name': name, **record})


# pack


def pack(args: argparse.Namespace) -> None:
    """Puts what the runs left into archives that are small enough: records, best weights, states of unfinished runs."""
    names = ('result.json', 'summary.csv', 'args.yaml', 'config.json', 'model_best.safetensors')
    files = [path for name in names for path in sorted(args.work.glob(f'*/{name}'))]
    files += [path for run in sorted(args.work.glob('*/')) for path in newest_state(run)]
    archive, size, count = None, 0, 0
    for path in files:
        if archive is None or size + path.stat().st_size > ARCHIVE_SIZE:
            archive, size, count = _next_archive(args.archives, archive, count)
            if archive is None:
                print(f'{path} and what follows are left out: {ARCHIVES} archives are full', flush=True)
                break
        archive.add(path, arcname=str(path.relative_to(args.work)))
        size += path.stat().st_size
    if archive is not None:
        archive.close()
    print(f'{len(files)} files, {count} archives', flush=True)


def newest_state(run: Path) -> list[Path]:
    """The files that resume an unfinished run; none of a finished one."""
    if (run / 'result.json').exists():
        return []
    states = state_folders(run / 'last')
    return sorted(path for path in states[-1].iterdir() if path.is_file()) if states else []


def _next_archive(folder: Path, archive: Optional[tarfile.TarFile], count: int) -> tuple:
    if archive is not None:
        archive.close()
    if count == ARCHIVES:
        return None, 0, count
    return tarfile.open(folder / f'runs-{count + 1}.tar.gz', 'w:gz'), 0, count + 1


def main() -> None:
    args = parse(__doc__, ('runs', 'pack'))
    {'runs': runs, 'pack': pack}[args.part](args)


if __name__ == '__main__':
    main()
