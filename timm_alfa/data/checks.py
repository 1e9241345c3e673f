"""Options of data and augmentation that exclude each other, or have no effect."""

from dataclasses import fields
from typing import Any, Callable, Iterable, Iterator

from timm_alfa.data.config import AugConfig, DataConfig
from timm_alfa.data.datasets.registry import KINDS, kinds_with, special_options
from timm_alfa.options import default_of, long_flag

# What the in-memory loader leaves to timm's transforms, which work on one PIL image at a time.
TIMM_ONLY = ('scale', 'ratio', 'color_jitter', 'aa', 'train_interpolation')

AUGMENTATION = ('crop_padding', 'scale', 'ratio', 'hflip', 'vflip', 'color_jitter', 'aa', 'reprob')
ERASING = ('remode', 'recount')
MIXING = ('mixup_prob', 'mixup_switch_prob', 'mixup_mode', 'mixup_off_epoch')


def changed(config: Any, names: Iterable[str]) -> list[str]:
    """Returns those of the named fields that are not at their default."""
    known = {field.name: field for field in fields(config)}
    return [name for name in names if getattr(config, name) != default_of(known[name])]


def pair_errors(data: DataConfig, aug: AugConfig, flag_name: Callable[[str], str] = long_flag) -> Iterator[str]:
    """Yields one line per option that another one rules out."""
    if data.loader == 'memory':
        for name in changed(aug, TIMM_ONLY):
            yield f"{flag_name(name)} needs timm's transforms: drop it, or use {flag_name('loader')} timm."
    if data.score_unused and data.train_subset is None:
        yield (
            f'{flag_name("score_unused")} without {flag_name("train_subset")}: every training image is used. Add '
            f'{flag_name("train_subset")}, or leave it out.'
        )


def no_effect_on(data: DataConfig, kind: str, flag_name: Callable[[str], str] = long_flag) -> Iterator[str]:
    """Yields one line per option that is set and that data of this kind does not read."""
    title = KINDS[kind].title or f'{kind}/ datasets'
    for name in changed(data, KINDS[kind].unused):
        yield f'{flag_name(name)} has no effect with {title}.'


def no_effect(
    data: DataConfig,
    aug: AugConfig,
    kind: str,
    loader: str,
    flag_name: Callable[[str], str] = long_flag,
) -> Iterator[str]:
    """Yields one line per option that is set and has no effect.

    Args:
        data: Options of the data.
        aug: Options of the augmentation.
        kind: Key of `KINDS`: what the data is.
        loader: The loader in use, 'memory' or 'timm'.
        flag_name: Returns an option as the user wrote it.
    """
    # the kind of dataset
    yield from no_effect_on(data, kind, flag_name)
    for name in changed(data, special_options()):
        if name not in KINDS[kind].options:
            others = ' or '.join(f'{other}/' for other in kinds_with(name))
            yield f'{flag_name(name)} has no effect without {flag_name("dataset")} {others}.'

    # the loader
    for config, other, names in (
        (aug, 'timm', ('crop_padding',)),
        (aug, 'memory', ('train_interpolation',)),
        (data, 'memory', ('pin_mem',)),
    ):
        if loader == other:
            yield from (f'{flag_name(name)} has no effect with the {loader} loader.' for name in changed(config, names))

    # augmentation that is off
    for off, why, unused in (
        (aug.no_aug, f'with {flag_name("no_aug")}', AUGMENTATION),
        (aug.reprob == 0, f'while {flag_name("reprob")} is 0', ERASING),
        (not aug.mixes, 'without mixup or cutmix', MIXING),
    ):
        if off:
            yield from (f'{flag_name(name)} has no effect {why}.' for name in changed(aug, unused))
