"""What a run leaves for machines and for whoever asks later how it came about."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

SECRET_NAME = re.compile(r'(token|secret|password|passwd|api_?key|credential)', re.IGNORECASE)
URL_USER = re.compile(r'(\b[a-z][a-z0-9+.-]*://)[^/@\s]+@', re.IGNORECASE)
URL_QUERY = re.compile(r'([?&][^=&\s]*(?:token|key|secret|sig|signature|password)[^=&\s]*=)[^&\s]+', re.IGNORECASE)
TOKENS = re.compile(r'\b(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,})\b')


def redact(value: Any, name: str = '') -> Any:
    """A value without secrets: tokens, users and signatures in URLs, values of names such as 'api_key'."""
    if isinstance(value, dict):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, name) for item in value]
    if not isinstance(value, str):
        return value
    if SECRET_NAME.search(name):
        return '***'
    value = URL_QUERY.sub(r'\1***', URL_USER.sub(r'\1***@', value))
    for secret in _secrets_of_environment():
        value = value.replace(secret, '***')
    return TOKENS.sub('***', value)


def _secrets_of_environment() -> list[str]:
    """Values of variables such as HF_TOKEN that are long enough to be recognised."""
    return [
        value
        for key, value in os.environ.items()
        if re.search(r'(TOKEN|SECRET|PASSWORD|API_?KEY)', key, re.IGNORECASE) and len(value) >= 8
    ]


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
    """The commit of the code, with '+' where it was changed since; None outside of a git checkout."""
    here = Path(__file__).resolve().parents[3]
    if not (here / '.git').exists():
        return None
    try:
        head = subprocess.run(['git', '-C', here, 'rev-parse', 'HEAD'], capture_output=True, text=True, timeout=10)
        changed = subprocess.run(
            ['git', '-C', here, 'status', '--porcelain', '--untracked-files=no'],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ('+' if changed.stdout.strip() else '') if head.returncode == 0 else None


def device_name(device) -> str:
    """A device in words."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type


def command() -> list[str]:
    """The command line, without secrets."""
    words, hide = [], False
    for word in [Path(sys.argv[0]).name, *sys.argv[1:]]:
        words.append('***' if hide else redact(word))
        hide = word.startswith('--') and '=' not in word and bool(SECRET_NAME.search(word))
    return words


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
