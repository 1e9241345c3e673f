"""Weights of a plain timm model in files: safetensors, or pickles that hold tensors alone."""

import pickle
from pathlib import Path
from typing import Mapping

import torch
from safetensors.torch import load_file, save_file
from timm.models import clean_state_dict
from torch import nn

from timm_alfa.errors import CheckpointError, first_line
from timm_alfa.training.checkpoint.write_errors import write_errors
from timm_alfa.utils.files import atomic_file
from timm_alfa.utils.fsdp import distribute_like, full_tensor

STATE_KEYS = ('state_dict_ema', 'state_dict', 'model_ema', 'model')


def plain_state(model: nn.Module, keep: bool = True) -> dict[str, torch.Tensor]:
    """The model's tensors on the CPU, contiguous and each with memory of its own, as safetensors needs them.

    Args:
        keep: Whether this process wants them. All processes call it for a sharded model: each gives its pieces.
    """
    seen: set[int] = set()
    state = {}
    for name, value in clean_state_dict(model.state_dict()).items():
        tensor = full_tensor(value)
        if not keep:
            continue
        tensor = tensor.to('cpu').contiguous()
        shared = tensor.data_ptr() in seen and tensor.numel()
        seen.add(tensor.data_ptr())
        state[name] = tensor.clone() if shared else tensor
    return state


def save_weights(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes weights; a reader never sees half a file.

    Raises:
        CheckpointError: They could not be written; what was there before stays.
    """
    with write_errors(path), atomic_file(path) as temporary:
        save_file(dict(state), temporary, metadata={'format': 'pt'})


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A model's state from a file; of a training checkpoint, its averaged weights if it has them, else its own.

    Raises:
        CheckpointError: No such file, not a checkpoint, or a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint '{path}' is no file: give a .safetensors or .pth file, or a run's folder.")
    try:
        loaded = (
            load_file(path)
            if path.suffix == '.safetensors'
            else torch.load(path, map_location='cpu', weights_only=True)
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint '{path}' holds more than tensors, so that loading it could run code: refused. "
            'Have its owner save it as safetensors.'
        ) from error
    except Exception as error:  # of a file of another kind, readers raise whatever its bytes lead them to
        raise CheckpointError(
            f"checkpoint '{path}' cannot be read ({type(error).__name__}: {first_line(error)[:120]}): damaged, or no "
            "checkpoint. Give a .safetensors or .pth file, or a run's folder."
        ) from error
    key = next((key for key in STATE_KEYS if isinstance(loaded, dict) and isinstance(loaded.get(key), dict)), None)
    state = loaded[key] if key else loaded
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"checkpoint '{path}' holds no model weights (a mapping of names to tensors).")
    return clean_state_dict(state)


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], source, other_head: bool = False) -> None:
    """Loads a state into a model, all of it.

    Args:
        source: Where it comes from, for messages.
        other_head: Leave the classifier as it is where the shapes differ, to fine-tune on other classes.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    own = model.state_dict()
    state = dict(state)
    if other_head:
        head = model.default_cfg.get('classifier') if hasattr(model, 'default_cfg') else None
        heads = tuple(f'{name}.' for name in ([head] if isinstance(head, str) else head or ()))
        for name, value in list(state.items()):
            if heads and name.startswith(heads) and name in own and own[name].shape != value.shape:
                state[name] = own[name]
    differing = [
        f'{name} {tuple(value.shape)} for {tuple(own[name].shape)}'
        for name, value in state.items()
        if name in own and own[name].shape != value.shape
    ]
    missing = [name for name in own if name not in state and not name.endswith('num_batches_tracked')]
    unknown = [name for name in state if name not in own and not name.endswith('num_batches_tracked')]
    for what, names in (('other shapes', differing), ('missing', missing), ('unknown', unknown)):
        if names:
            more = f' and {len(names) - 2} more' if len(names) > 2 else ''
            raise CheckpointError(
                f"checkpoint '{source}' does not fit the model: {what}: {', '.join(names[:2])}{more}. "
                'Give the --model (and --num-classes, --in-chans, --img-size) it was trained with.'
            )
    model.load_state_dict(
        {name: distribute_like(value, own.get(name, value)) for name, value in state.items()}, strict=False
    )


def find_weights(path: str) -> Path:
    """The weights file meant by a file, a run's folder or a folder in timm's Hub form.

    Raises:
        CheckpointError: There is none.
    """
    given = Path(path)
    if given.is_file():
        return given
    names = ('model_best.safetensors', 'model.safetensors', 'model_last.safetensors')
    if not given.is_dir():
        raise CheckpointError(
            f"checkpoint '{path}' does not exist: give a file, a run's folder, local-dir: or hf-hub:."
        )
    found = next((given / name for name in names if (given / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"folder '{path}' holds none of {', '.join(names)}.")
    return found
