"""What benchmarks share: timing functions in turns in one process, peaks of memory, and tables of results."""

import argparse
import json
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Callable, Sequence

import timm
import torch

import timm_alfa
from timm_alfa.training.run_dir.provenance import commit
from timm_alfa.utils.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'results' / 'benchmarks'
COMMIT = commit()  # read at the start, when the code that is measured has been loaded


def synchronize() -> None:
    """Waits for the GPU if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time of one call, including its work on the GPU."""
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def interleave(functions: Sequence[Callable[[], object]], pairs: int) -> list[list[float]]:
    """Times functions in turns, so that drift of the machine affects all of them equally.

    Every round runs all functions once, every other round in reverse. A warm-up round is not counted.

    Args:
        functions: What to time.
        pairs: Number of rounds.

    Returns:
        For each function its seconds in each round.
    """
    for function in functions:
        function()

    times: list[list[float]] = [[] for _ in functions]
    for turn in range(pairs):
        order = range(len(functions)) if turn % 2 == 0 else reversed(range(len(functions)))
        for i in order:
            times[i].append(seconds(functions[i]))
    return times


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """The median over rounds of the ratio of two functions' times in the same round."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes allocated at once while a function runs, above what was allocated before."""
    function()  # warms up
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == '[memory]']
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def machine() -> dict[str, object]:
    """What a measurement depends on: device, threads, load, versions and commit."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'{_cpu()}, {os.cpu_count()} cores'
    return {
        'device': device,
        'threads': torch.get_num_threads(),
        'load at the end': round(os.getloadavg()[0], 1),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'timm': timm.__version__,
        'timm_alfa': timm_alfa.__version__,
        'commit': COMMIT,
    }


def _cpu() -> str:
    """The processor's name, if the system has it."""
    info = Path('/proc/cpuinfo')
    names = re.findall(r'^model name\s*:\s*(.+)$', info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0] if names else f'{platform.processor() or platform.machine()} CPU'


def table(rows: Sequence[dict]) -> str:
    """Rows as a Markdown table with the columns of the first one."""
    columns = list(rows[0])
    return markdown_table(columns, [[_cell(row.get(column)) for column in columns] for row in rows])


def _cell(value) -> str:
    if value is None:
        return ''
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def command() -> str:
    """The command line, without paths of this machine."""
    words = [re.sub(r'^(hfds/)?(?:/|\.\./).*', r'\1PATH', word) for word in sys.argv[1:]]
    return ' '.join(('python', f'benchmarks/{Path(sys.argv[0]).name}', *words))


def add_results(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that all benchmarks share."""
    parser.add_argument(
        '--results',
        type=Path,
        default=RESULTS,
        help='folder of the tables; replaces those of an earlier call (default: results/benchmarks)',
    )


def write(folder: Path, name: str, title: str, sections: dict[str, Sequence[dict]]) -> Path:
    """Writes NAME.json and NAME.md, and prints the tables.

    Args:
        folder: Where they go.
        name: Of the files.
        title: Heading of the page.
        sections: Rows of each table, by heading.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{name}.json').write_text(json.dumps({'machine': machine(), **sections}, indent=1) + '\n')
    where = ', '.join(f'{key} {value}' for key, value in machine().items())
    tables = [f'## {heading}\n\n{table(rows)}' for heading, rows in sections.items() if rows]
    body = '\n\n'.join(tables)
    text = f'# {title}\n\nMade by `{command()}`. {where}.\n\n{body}\n'
    path = folder / f'{name}.md'
    path.write_text(text)
    print(text)
    return path
