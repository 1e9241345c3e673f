"""Clean and robust accuracy with any number of processes, each image counted once."""

from typing import Any, Optional, Union

import torch
from accelerate import Accelerator
from timm.task import ClassificationEvaluator
from torch import nn

from timm_alfa.data.datasets.base import Subset
from timm_alfa.perturb.pgd import robust_correct
from timm_alfa.training.class_scores import ClassScores
from timm_alfa.training.correct_images import CorrectImages
from timm_alfa.training.report.predictions import Collector
from timm_alfa.training.stop import StopFlag
from timm_alfa.utils.progress import progress


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader,
    accelerator: Accelerator,
    stop: Optional[StopFlag] = None,
    subset: Optional[Subset] = None,
    collector: Union[Collector, ClassScores, None] = None,
) -> dict[str, Any]:
    """Cross-entropy, top-1 and top-5 of a plain model.

    Args:
        loader: Yields (input [B, C, H, W], class indices [B]) on the device: this process's share of the images, each
            image in exactly one share. Shares may differ in length: no process waits for another within the loop.
        stop: Once it is set, this process skips the rest of its share.
        subset: All images that the processes share, if each image's answer is wanted.
        collector: Is given each batch's answers.

    Returns:
        `loss`, `top1`, `top5` (percent), `correct` and `count`, over all processes; with `subset`, also
        `correct_images`, a `PackedBits` in its order.
    """
    training = model.training
    model.eval()
    evaluator = ClassificationEvaluator(accelerator.device)
    images = None if subset is None else CorrectImages(subset.indices)
    try:
        for input, target in loader:
            if stop:
                break
            with accelerator.autocast():
                output = model(input)
            evaluator.update(output, target)
            if images is not None:
                images.add(loader.last_indices, output, target)
            if collector is not None:
                collector.add(loader.last_indices, output, target)
    finally:
        model.train(training)
    metrics = dict(evaluator.compute(distributed=accelerator.num_processes > 1))
    counts = accelerator.reduce(evaluator.counts, 'sum')
    metrics.update(correct=int(counts[1]), count=int(counts[0]))
    if images is not None:
        metrics['correct_images'] = images.pack(accelerator)
    return metrics


def evaluate_robust(model: nn.Module, loader, accelerator: Accelerator, seed: int = 0, **attack) -> dict[str, float]:
    """Accuracy under PGD: an image counts if it is classified correctly, and still is after every attack.

    Args:
        loader: As for `evaluate`.
        seed: Of the random starts. Each process draws its own, so the last digit may depend on their number.
        attack: Options of `timm_alfa.perturb.pgd.pgd`. It runs in single precision, even if the clean pass does not.

    Returns:
        `robust_top1` (percent), `robust_correct` and `robust_count`, over all processes.
    """
    training = model.training
    model.eval()
    batches = progress(loader, 'attack', active=accelerator.is_main_process)
    generator = torch.Generator(accelerator.device).manual_seed(seed + accelerator.process_index)
    counts = torch.zeros(2, dtype=torch.long, device=accelerator.device)
    try:
        for input, target in batches:
            correct = robust_correct(model, input, target, generator=generator, **attack)
            counts += torch.stack([correct.sum(), correct.new_tensor(len(correct), dtype=torch.long)])
    finally:
        model.train(training)
    correct, count = accelerator.reduce(counts, 'sum').tolist()
    return {'robust_top1': 100 * correct / max(count, 1), 'robust_correct': correct, 'robust_count': count}
