"""--dry-run: shows what a run would be, and writes nothing."""

import json
import warnings
from pathlib import Path

import torch
from torch import nn

from timm_alfa.errors import AlfaWarning
from timm_alfa.tasks import create_task
from timm_alfa.training.options.config import TrainConfig
from timm_alfa.training.preflight.estimate import IMAGES, Estimate, estimate
from timm_alfa.training.preflight.features import features_text, summary
from timm_alfa.training.run import Run
from timm_alfa.training.setup.prepare import task_arguments
from timm_alfa.utils.plain_data import dump_yaml
from timm_alfa.utils.redact import redact
from timm_alfa.utils.text import printable, short_number


def dry_run(run: Run, folder: Path) -> None:
    """Prints the options, the features of the model and the costs of a step, and last one line of JSON.

    Args:
        folder: What the run's would be now.
    """
    model = run.unsharded(run.model)
    if not run.accelerator.is_main_process:
        return
    features = summary(model, run.blocks or (), run.input_config['input_size'])
    parameters = sum(p.numel() for p in run.model.parameters())
    costs = costs_of(run, model)

    print(options_text(run.config))
    print(f'\nmodel: {run.config.model.model}, {parameters:,} parameters')
    print(features_text(features))
    print(f'\n{costs_text(run, costs)}')
    print(printable(f'run: {folder}'))

    record = dict(
        status='dry_run',
        blocks={row.name: row.shape for row in features if row.perturbed},
        params=parameters,
        lr=run.lr,
        epochs=run.config.epochs,
        batch_size=run.effective_batch,
        run=str(folder),
        relative_cost=round(costs.relative_cost, 3),
        memory_bytes=costs.memory,
    )
    print(json.dumps(record), flush=True)


def options_text(config: TrainConfig) -> str:
    """Every option as YAML that --config takes, first those that are not at their default."""
    options = redact(config.flat())
    defaults = TrainConfig(task_options=type(config.task_options)(), task_prefix=config.task_prefix).flat()
    changed = {key: value for key, value in options.items() if value != defaults[key]}
    others = {key: value for key, value in options.items() if key not in changed}
    parts = [
        '# changed',
        dump_yaml(changed).strip() if changed else '# nothing',
        '# defaults',
        dump_yaml(others).strip(),
    ]
    return printable('\n'.join(parts), keep='\n')


def costs_of(run: Run, model: nn.Module) -> Estimate:
    """What a step of the run costs. Trains the model on random images: nothing may use it afterwards."""
    config, device = run.config, run.accelerator.device
    arguments = task_arguments(config.task_options, run.input_config)
    images = torch.randn(IMAGES, *run.input_config['input_size'], device=device)
    target = torch.arange(IMAGES, device=device) % run.data.num_classes
    with warnings.catch_warnings(), torch.compiler.set_stance('force_eager'), run.accelerator.autocast():
        warnings.simplefilter('ignore', AlfaWarning)  # the run's own task has warned
        task = create_task(config.task.task, model, device=device, **arguments).to(device).train()
        task.total_updates = run.task.total_updates
        return estimate(task, (images, target), config.data.batch_size, run.optimizer)


def costs_text(run: Run, costs: Estimate) -> str:
    """What a step costs, in two lines."""
    cost = f'step: {costs.relative_cost:.2f} times the operations of standard training'
    if costs.perturbed_cost > costs.relative_cost * 1.001:
        cost += f' on average, {costs.perturbed_cost:.2f} times when it perturbs'
    total, state, activations = (
        f'{short_number(float(size))}B' for size in (costs.memory, costs.state_bytes, costs.activation_bytes)
    )
    memory = (
        f'memory per process: about {total} = {state} for weights, gradients and optimizer + {activations} for '
        f'{run.config.data.batch_size} images; data, libraries and kernels come on top'
    )
    return f'{cost}\n{memory}'
