"""Weights of a plain timm model in files: safetensors, or pickles that hold nothing but tensors."""

import argparse
import pickle
import sys
from pathlib import Path
from typing import Any, Mapping, Optional

import torch
from safetensors.torch import load_file, save_file
from timm.models import clean_state_dict
from torch import nn

from timm_alfa.errors import CheckpointError, first_line
from timm_alfa.training.checkpoint.nested import weights_in, without_prefix
from timm_alfa.training.checkpoint.write_errors import write_errors
from timm_alfa.utils.console import logger
from timm_alfa.utils.files import atomic_file
from timm_alfa.utils.fsdp import distribute_like, full_tensor
from timm_alfa.utils.text import shorten_list


def plain_state(model: nn.Module, keep: bool = True) -> dict[str, torch.Tensor]:
    """The model's tensors on the CPU, contiguous and without shared memory, as safetensors needs them.

    Args:
        keep: Whether this process needs them. For a sharded model all processes call this, since each has a part.
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


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        return load_file(path)
    except Exception as error:  # a reader raises whatever the bytes of a damaged file lead it to
        raise _unreadable(path, error) from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A model's state from a file; of a training checkpoint, its EMA weights if it has them, else its own.

    Raises:
        CheckpointError: There is no such file, it is not a checkpoint, or it is a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint '{path}' is not a file: use a .safetensors or .pth file, or the folder of a run."
        )
    loaded = read_safetensors(path) if path.suffix == '.safetensors' else _read_pickle(path)

    return clean_state_dict(weights_in(loaded, path))


def load_tensors_only(path: Path, what: str, advice: str = '') -> Any:
    """The content of a file of torch.save, if it is tensors and plain values.

    Args:
        what: What the file is, for the message.
        advice: A sentence that follows the message.

    Raises:
        CheckpointError: It is a pickle that would run code.
        Exception: It is damaged; what is raised depends on its bytes.
    """
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        message = f"{what} '{path}' holds more than tensors, so that loading it could run code: refused. {advice}"
        raise CheckpointError(message.rstrip()) from error


def _read_pickle(path: Path) -> Any:
    try:
        # timm's train.py saves its options with the weights: plain values with names
        with torch.serialization.safe_globals([argparse.Namespace]):
            return load_tensors_only(path, 'checkpoint', 'Ask its author for a safetensors file.')
    except CheckpointError:
        raise
    except Exception as error:  # as in read_safetensors
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"checkpoint '{path}' cannot be read ({type(error).__name__}: {first_line(error)[:120]}): it is damaged, or "
        'not a checkpoint. Use a .safetensors or .pth file, or the folder of a run.'
    )


def misfits(
    expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], optional: Optional[str] = None
) -> list[str]:
    """Why a state does not fit a model: a phrase for each kind of difference, which names the first few tensors.

    Args:
        expected: The model's own state.
        optional: Tensors whose names end with this may be missing or unexpected.
    """

    def required(name: str) -> bool:
        return optional is None or not name.endswith(optional)

    missing = [name for name in expected if name not in state and required(name)]
    unexpected = [name for name in state if name not in expected and required(name)]
    other_shapes = []
    for name, tensor in state.items():
        if name in expected and expected[name].shape != tensor.shape:
            other_shapes.append(f'{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}')

    groups = {'other shapes': other_shapes, 'missing': missing, 'unexpected': unexpected}
    return [f'{kind}: {shorten_list(names, 3)}' for kind, names in groups.items() if names]


def load_checkpoint(model: nn.Module, state: Mapping[str, torch.Tensor], source, adapt: bool = False) -> None:
    """Loads weights that others may have saved into a model: also those that are nested under a prefix.

    Args:
        state: From `read_weights`.
        source: Where it comes from, for messages.
        adapt: To fine-tune: keep the model's classifier if it is missing or differs, and convert weights that are for
            another size of images, or named as another library names them.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    own, head = model.state_dict(), _head_prefixes(model) if adapt else ()
    state = dict(without_prefix(own, state, head, source))
    if adapt and _replace_head(own, state, head):
        logger.info("weights: the classifier in '%s' is missing or of other classes: the model keeps its own", source)
    if adapt:
        state = converted(model, state, source)
    load_weights(model, state, source)


def converted(model: nn.Module, state: dict[str, torch.Tensor], source) -> dict[str, torch.Tensor]:
    """A state that does not fit, converted by timm's function of the architecture, such as position embeddings that are
    resampled to another size of images. The state as it is, if that does not make it fit.

    Args:
        source: Where it comes from, for messages.
    """
    own = model.state_dict()
    convert = getattr(sys.modules[type(model).__module__], 'checkpoint_filter_fn', None)
    if convert is None or not misfits(own, state, optional='num_batches_tracked'):
        return state
    try:
        result = convert(dict(state), model)
    except Exception:  # timm's functions raise whatever a state of another kind leads them to
        return state
    if misfits(own, result, optional='num_batches_tracked'):
        return state
    changed = [name for name, tensor in result.items() if name in state and state[name].shape != tensor.shape]
    resampled = f': resampled {shorten_list(changed, 3)}' if changed else ''
    logger.info("weights: '%s' is converted by timm's function of the architecture%s", source, resampled)
    return result


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], source) -> None:
    """Loads a state into a model, all of it.

    Args:
        source: Where it comes from, for messages.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    own = model.state_dict()
    if found := misfits(own, state, optional='num_batches_tracked'):
        raise CheckpointError(
            f"checkpoint '{source}' does not fit the model: {'; '.join(found)}. "
            'Use the --model (and --num-classes, --in-chans, --img-size) it was trained with.'
        )
    placed = {name: distribute_like(value, own.get(name, value)) for name, value in state.items()}
    model.load_state_dict(placed, strict=False)


def _head_prefixes(model: nn.Module) -> tuple[str, ...]:
    """What the names of a classifier's weights begin with; some models have two."""
    head = getattr(model, 'default_cfg', {}).get('classifier') or ()
    heads = (head,) if isinstance(head, str) else tuple(head)
    return tuple(f'{name}.' for name in heads)


def _replace_head(own: Mapping[str, torch.Tensor], state: dict[str, torch.Tensor], head: tuple[str, ...]) -> bool:
    """Puts the model's own classifier into a state that has none, or another one; whether it did."""
    if not head:
        return False
    ours = {name: tensor.shape for name, tensor in own.items() if name.startswith(head)}
    theirs = {name: tensor.shape for name, tensor in state.items() if name.startswith(head)}
    if ours == theirs:
        return False
    for name in theirs:
        del state[name]
    state.update({name: own[name] for name in ours})
    return True


def find_weights(path: str) -> Path:
    """The weights file that a path means: itself, or the one in a run's folder or a folder in timm's Hub form.

    Raises:
        CheckpointError: There is none.
    """
    given = Path(path)
    if given.is_file():
        return given
    if not given.is_dir():
        raise CheckpointError(
            f"checkpoint '{path}' does not exist: use a file, the folder of a run, local-dir: or hf-hub:."
        )
    names = ('model_best.safetensors', 'model.safetensors', 'model_last.safetensors')
    for name in names:
        if (given / name).is_file():
            return given / name
    raise CheckpointError(f"folder '{path}' does not hold any of {', '.join(names)}.")
