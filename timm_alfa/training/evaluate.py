"""Clean accuracy over any number of processes, each image counted once."""
import torch
from accelerate import Accelerator
from torch import nn

from timm.task import ClassificationEvaluator


@torch.no_grad()
def evaluate(model: nn.Module, loader, accelerator: Accelerator) -> dict[str, float]:
    """Cross-entropy, top-1 and top-5 of a plain model.

    Args:
        loader: Gives (input [B, C, H, W], class indices [B]) on the device; this process's share of the images,
            each image in exactly one share. Shares may differ in length: no process waits for another in a batch.

    Returns:
        `loss`, `top1`, `top5` (percent), `correct` and `count`, over all processes.
    """
    training = model.training
    model.eval()
    evaluator = ClassificationEvaluator(accelerator.device)
    try:
        for input, target in loader:
            with accelerator.autocast():
                output = model(input)
            evaluator.update(output, target)
    finally:
        model.train(training)
    metrics = dict(evaluator.compute(distributed=accelerator.num_processes > 1))
    counts = accelerator.reduce(evaluator.counts, 'sum')
    return {**metrics, 'correct': int(counts[1]), 'count': int(counts[0])}
