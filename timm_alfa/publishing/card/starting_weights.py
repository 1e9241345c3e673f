"""The published weights that training started from."""

from typing import Any, Optional

import timm

from timm_alfa.training.run_dir.finished import FinishedRun


def pretrained_name(run: FinishedRun) -> Optional[str]:
    """The name of the model whose published weights a run started from; None if it did not use `--pretrained`."""
    return str(run.args.get('model') or run.record['model']) if run.args.get('pretrained') else None


def published_cfg(name: str) -> Optional[Any]:
    """What timm knows of a model's published weights; None if it does not know them."""
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that this timm does not know
        return None
