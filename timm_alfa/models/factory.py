"""The only way from a name and arguments that others wrote to a timm model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import timm
from timm.models import load_model_config_from_hf, parse_model_name, resolve_model_input_args, split_model_name_tag
from timm.models._hub import load_model_config_from_path
from torch import nn

from timm_alfa.errors import AlfaError, ConfigError, first_line
from timm_alfa.models.arguments import WEIGHT_LOCATIONS, argument_errors


@contextmanager
def build_errors(attempt: str) -> Iterator[None]:
    """Turns whatever a model's constructor, the Hub or a file raises into a `ConfigError`: it is about the options.

    Args:
        attempt: What failed, such as "model 'x' cannot be built".
    """
    try:
        yield
    except AlfaError:
        raise
    except Exception as error:
        raise ConfigError(f'{attempt}: {first_line(error)}.') from error


def create_model(
    name: str,
    arguments: Mapping[str, Any],
    *,
    origin: str = '--model-kwargs',
    pretrained: bool = False,
    img_size: Optional[int] = None,
) -> nn.Module:
    """Builds a timm model from constructor arguments alone: the caller's, and those of the name's config.json.

    timm merges both into the call of its factory, whose own options (`pretrained_cfg_overlay`, `cache_dir`) say what
    is downloaded and where it is written. They are refused before timm resolves the arguments, and again afterwards.

    Args:
        name: A name of timm's registry, 'hf-hub:OWNER/NAME' or 'local-dir:FOLDER'.
        arguments: Of the constructor; those that are None are left out.
        origin: Where they come from, for messages.
        pretrained: Load the weights of that name.
        img_size: Side of the input, for architectures that are made for one size.

    Raises:
        ConfigError: With every argument that is refused; nothing but config.json has been downloaded.
        Exception: Whatever timm, the Hub or a constructor raises.
    """
    given = {key: value for key, value in arguments.items() if value is not None}
    source, place = parse_model_name(name)

    # before timm resolves them, which may already write into a cache_dir
    _refuse(argument_errors(given, origin))
    architecture, saved, cfg = _saved_config(source, place)
    if timm.is_model(architecture):
        _refuse(argument_errors(given, origin, architecture))
        _refuse(_config_errors(name, architecture, saved, cfg))

    resolved = resolve_model_input_args(name, {'img_size': img_size}, **given)
    if source is None:
        return timm.create_model(**resolved, pretrained=pretrained)

    # and as timm resolved them: it has read config.json again, and a Hub may give another one
    architecture, cfg = resolved.pop('model_name'), resolved.pop('pretrained_cfg')
    saved = resolved.pop('pretrained_model_args', {})
    _refuse(_config_errors(name, architecture, {**saved, **resolved}, cfg))
    cfg = _weights_of(source, place, cfg)
    return timm.create_model(
        architecture, pretrained=pretrained, pretrained_cfg=cfg, pretrained_model_args=saved or None, **resolved
    )


def _refuse(errors: Iterator[str]) -> None:
    if found := list(errors):
        raise ConfigError(found)


def _saved_config(source: Optional[str], place: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Architecture, model arguments and pretrained_cfg of a config.json on the Hub or in a folder.

    A name of timm's registry has no such file: its arguments and pretrained_cfg are empty here.
    """
    if source is None:
        return split_model_name_tag(place)[0], {}, {}
    load = load_model_config_from_hf if source == 'hf-hub' else load_model_config_from_path
    cfg, architecture, saved = load(place)
    return architecture, saved or {}, cfg


def _config_errors(name: str, architecture: str, saved: Mapping[str, Any], cfg: Mapping[str, Any]) -> Iterator[str]:
    """What a config.json holds that it may not."""
    source, place = parse_model_name(name)
    file = f"'{Path(place) / 'config.json'}'" if source == 'local-dir' else f"the config.json of '{name}'"
    yield from argument_errors(saved, f"'model_args' in {file}", architecture)
    for key in ('hf_hub_filename', 'state_dict'):
        if cfg.get(key):
            yield (
                f"'pretrained_cfg' in {file} has '{key}', which would load other weights than the model.safetensors "
                'next to it. Leave it out.'
            )


def _weights_of(source: str, place: str, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A pretrained_cfg whose weights are those of its own folder or repo, whatever else it says of them."""
    kept = {key: value for key, value in cfg.items() if key not in WEIGHT_LOCATIONS}
    location = {'hf_hub_id': place} if source == 'hf-hub' else {'file': place}
    return {**kept, 'source': source, **location}
