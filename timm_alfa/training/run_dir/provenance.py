"""Where a result comes from: versions, commit, device and command line."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

from timm_alfa.utils.program import INSTALLED
from timm_alfa.utils.redact import redact_words


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {'python': platform.python_version()}
    for package in ('torch', 'timm', 'timm_alfa', 'accelerate'):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = _own_version(package)
    return found


def _own_version(package: str) -> str:
    import importlib

    return getattr(importlib.import_module(package), '__version__', 'unknown')


def commit() -> Optional[str]:
    """The commit of the code, with '+' if files were changed since; None outside of a git checkout."""
    here = Path(__file__).resolve().parents[3]
    if not (here / '.git').exists():
        return None
    try:
        head = _git(here, 'rev-parse', 'HEAD')
        changed = _git(here, 'status', '--porcelain', '--untracked-files=no')
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode != 0:
        return None
    return head.stdout.strip() + ('+' if changed.stdout.strip() else '')


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = ['git', '-C', str(folder), *words]
    # the words are fixed, and git is the user's own
    return subprocess.run(command, capture_output=True, text=True, timeout=10)  # nosec B603


def device_name(device) -> str:
    """A device's name."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type


def command(words: Optional[Sequence[str]] = None) -> list[str]:
    """A command line, without secrets.

    Args:
        words: Those of train.py, where a script made them; by default the command line is that of the process.
    """
    name = Path(sys.argv[0]).name
    own = [INSTALLED if name in ('__main__.py', f'{INSTALLED}.exe') else name, *sys.argv[1:]]
    return redact_words(own if words is None else ['train.py', *words])


def environment(accelerator, commit: Optional[str], command: list[str]) -> dict[str, Any]:
    """What the run ran on, for args.yaml."""
    return dict(
        versions=versions(),
        commit=commit,
        device=device_name(accelerator.device),
        num_processes=accelerator.num_processes,
        mixed_precision=accelerator.mixed_precision,
        command=command,
    )
