"""What is checked of a finished run before it gets a name: that its weights are its model's, and the name its own."""

from typing import Optional

import timm
import torch
from torch import nn

from timm_alfa.errors import AlfaError, CheckpointError, HubError
from timm_alfa.models.factory import create_model
from timm_alfa.training.checkpoint.weights import misfits, read_safetensors
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.text import shorten_list
from timm_alfa.zoo.tags import TAGS


def load_model(run: FinishedRun) -> nn.Module:
    """The run's model on the CPU, in evaluation mode: a fresh timm model with the run's weights, loaded strictly.

    Raises:
        ConfigError: Its config.json holds model arguments that are refused.
        CheckpointError: timm does not know the architecture; the weights cannot be read, are not finite, or do not
            fit it.
    """
    try:
        model = create_model(f'local-dir:{run.folder}', {})
    except AlfaError:
        raise
    except Exception as error:
        raise CheckpointError(f"timm cannot build what '{run.folder / 'config.json'}' describes: {error}.") from error
    if model.num_classes != run.record['num_classes']:
        raise CheckpointError(
            f"'{run.folder}' contradicts itself: config.json has {model.num_classes} classes, "
            f'result.json {run.record["num_classes"]}.'
        )

    state = read_safetensors(run.weights)
    errors = misfits(model.state_dict(), state)
    if not_finite := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        errors.append(f'not finite: {shorten_list(not_finite, 3)}')
    if errors:
        raise CheckpointError(f"'{run.weights}' is not a checkpoint of {run.architecture}: {'; '.join(errors)}.")
    model.load_state_dict(state, strict=True)
    return model.eval()


def check_name(run: FinishedRun, name: str, dataset_id: Optional[str] = None) -> None:
    """Checks that a repo called `architecture.tag` gets that architecture, and one of our tags what it stands for.

    Args:
        dataset_id: The dataset's id on the Hub, if the run's `--dataset` does not name it.

    Raises:
        HubError: The run is another.
    """
    model = name.partition('.')[0]
    errors = []
    if '.' in name and timm.is_model(model) and model != run.architecture:
        errors.append(f'the run trained {run.architecture}')
    if name in TAGS and TAGS[name].method != run.record['task']:
        errors.append(f"the run's task was {run.record['task']}")
    known = run.dataset_as(dataset_id)
    if name in TAGS and known is not TAGS[name].dataset:
        title = known.title if known else f'{run.record["dataset"]}, {run.record["num_classes"]} classes'
        errors.append(
            f'its dataset was {title}, not {TAGS[name].dataset.title}'
            + ('' if known else f' (if it was, pass --dataset-id {TAGS[name].dataset.hub_id})')
        )
    if errors:
        raise HubError(f"'{name}' is not the name of this run: {'; '.join(errors)}. Use another --repo-id.")
