"""What a model card states about the training of a run: options, circumstances and the command."""

from typing import Any, Optional, Sequence

from timm_alfa.publishing.card.sections import NOT_KNOWN, format_value, table
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.markdown import Markdown, code_block, code_span
from timm_alfa.utils.program import installed, launch_command
from timm_alfa.utils.text import printable

_AUGMENTATION = (
    'crop_padding',
    'scale',
    'hflip',
    'vflip',
    'color_jitter',
    'aa',
    'reprob',
    'mixup',
    'cutmix',
    'smoothing',
)

# How a recorded command line may begin.
_TRAIN = (('train.py',), ('timm-alfa', 'train'))


def option_table(run: FinishedRun) -> Optional[Markdown]:
    """The options of the method and the features that they named, or None if it has no options."""
    options = run.record.get('task_options') or {}
    rows: list[tuple[str, str]] = [(code_span(key), format_value(value)) for key, value in options.items()]
    if blocks := run.record.get('blocks'):
        rows.append(('perturbed features', Markdown(', '.join(map(code_span, blocks)))))
    return table(('Option', 'Value'), rows) if rows else None


def eta_table(run: FinishedRun) -> Optional[Markdown]:
    """L-ALFA's learned weight of each feature, or None."""
    eta = run.record.get('eta')
    if not eta:
        return None
    blocks = run.record.get('blocks') or [str(at) for at in range(len(eta))]
    rows = [(code_span(block), f'{value:.4f}') for block, value in zip(blocks, eta, strict=False)]
    return table(('Feature', 'Eta'), rows)


def facts(run: FinishedRun) -> list[tuple[str, str]]:
    """Hyperparameters, time, hardware and versions: the same rows for every run, so that two cards can be compared."""
    record, args = run.record, run.args
    commit = record.get('commit')
    versions = record.get('versions') or {}
    found = (
        ('Epochs', record.get('epochs_done', record.get('epochs'))),
        ('Best epoch', record.get('best_epoch')),
        ('Batch size', record.get('batch_size')),
        ('Optimizer', args.get('opt')),
        ('Learning rate', record.get('lr')),
        ('Schedule', args.get('sched')),
        ('Weight decay', args.get('weight_decay')),
        ('EMA of the weights', _ema(args)),
        ('Augmentation', _augmentation(args)),
        ('Seed', record.get('seed')),
        ('Training images', record.get('train_images')),
        ('Validation images', record.get('val_images')),
        ('Training time', None if record.get('seconds') is None else _time(record['seconds'])),
        ('Images per second', record.get('images_per_second')),
        ('Device', record.get('device')),
        ('Processes', record.get('num_processes')),
        ('Mixed precision', record.get('mixed_precision')),
        ('Versions', ', '.join(f'{package} {version}' for package, version in versions.items())),
        ('Commit of timm_alfa', commit and commit.replace('+', ', with uncommitted changes')),
    )
    return [(key, _shown(value)) for key, value in found]


def _shown(value: Any) -> str:
    if value in (None, ''):
        return NOT_KNOWN
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _ema(args: dict[str, Any]) -> Optional[str]:
    if 'model_ema' not in args:
        return None
    return f'decay {_shown(args.get("model_ema_decay"))}' if args['model_ema'] else 'no'


def _augmentation(args: dict[str, Any]) -> Optional[str]:
    """What augments the images, as far as it is on; None if the options are not known."""
    if 'mixup' not in args:
        return None
    shown = [f'{key} {format_value(args[key])}' for key in _AUGMENTATION if args.get(key)]
    return ', '.join(shown) or 'none'


def command(run: FinishedRun) -> Markdown:
    """The command that started the run, and those that resumed it with other options, as a block of code."""
    record = run.record
    if not record.get('command'):
        return Markdown('It was not recorded.')
    continued = record.get('continued') or []
    precision = continued[0]['before'] if continued else record.get('mixed_precision')
    lines = [_launch(record['command'], precision)]
    for each in continued:
        lines.append(f'# resumed after epoch {each["epoch"]} with other options:')
        lines.append(_launch(each['command'], each['mixed_precision']))
    return code_block('\n'.join(lines), 'shell')


def _launch(words: Sequence[str], precision: Optional[str]) -> str:
    """A command line; a word with line breaks is escaped, so that it stays on its line."""
    own = next((len(called) for called in _TRAIN if tuple(words[: len(called)]) == called), 0)
    program = installed('train').launch if own else ()
    return launch_command(*program, *map(printable, words[own:]), mixed_precision=precision)


def _time(seconds: float) -> str:
    return f'{seconds / 3600:.2f} hours' if seconds >= 360 else f'{seconds:.0f} seconds'
