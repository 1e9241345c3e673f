"""--dry-run: shows what a run would be, and writes nothing."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from timm_alfa.blocks.spec import feature_shape, shape_text
from timm_alfa.training.run import Run
from timm_alfa.utils.plain_data import dump_yaml
from timm_alfa.utils.redact import redact
from timm_alfa.utils.text import printable


def dry_run(run: Run, folder: Path) -> None:
    """Prints the resolved options, the shapes of features and the number of parameters, and last one line of JSON.

    Args:
        folder: What the run's would be now.
    """
    model = run.unsharded(run.model)
    if not run.accelerator.is_main_process:
        return
    options = redact(run.config.flat())
    blocks = feature_shapes(model, run.blocks or (), run.input_config['input_size'])
    parameters = sum(p.numel() for p in run.model.parameters())

    print(printable(dump_yaml(options), keep='\n'))
    for name, shape in blocks.items():
        print(f'block {name}: {shape_text(shape)}')
    print(f'parameters: {parameters:,}')
    print(printable(f'run: {folder}'))

    record = dict(
        status='dry_run',
        options=options,
        blocks=blocks,
        params=parameters,
        lr=run.lr,
        epochs=run.config.epochs,
        batch_size=run.effective_batch,
        run=str(folder),
    )
    print(json.dumps(record), flush=True)


@torch.no_grad()
def feature_shapes(model: nn.Module, names, input_size) -> dict[str, Any]:
    """Shape of each named module's output for one image, without the batch; a list of shapes if it returns several.

    Args:
        names: Names of modules.
        input_size: (C, H, W).
    """
    shapes: dict[str, Any] = {}
    handles = []
    for name in names:

        def note_shape(module, args, output, name=name):
            shapes[name] = feature_shape(output)

        handles.append(model.get_submodule(name).register_forward_hook(note_shape))
    first, training = next(model.parameters()), model.training
    try:
        model.eval()(torch.zeros(1, *input_size, device=first.device, dtype=first.dtype))
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    return shapes
