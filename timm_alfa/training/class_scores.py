"""Scores that weigh classes alike, however many images they have."""

import torch
from accelerate import Accelerator

from timm_alfa.training.metrics import ranked_classes

CLASS_SCORES = ('balanced_accuracy', 'macro_f1')


class ClassScores:
    """Counts this process's answers by class; nothing is read back from the device before the end.

    Args:
        num_classes: Number of classes.
        device: Where batches are.
    """

    def __init__(self, num_classes: int, device: torch.device):
        self.counts = torch.zeros(3, num_classes, dtype=torch.long, device=device)  # images, predicted, correct

    def add(self, indices: torch.Tensor, output: torch.Tensor, target: torch.Tensor) -> None:
        """Adds a batch.

        Args:
            indices: Not used.
            output: Logits, (batch, classes).
            target: Class indices, (batch,).
        """
        predicted = ranked_classes(output, 1)[:, 0]
        found = (target, predicted, target[predicted == target])
        classes = self.counts.shape[1]
        self.counts += torch.stack([torch.bincount(each, minlength=classes) for each in found])

    def compute(self, accelerator: Accelerator) -> dict[str, float]:
        """`balanced_accuracy` and `macro_f1` over all processes, in percent, as scikit-learn defines them.

        Balanced accuracy is the mean recall of the classes that have images, macro F1 the mean F1 of those that have
        images or are predicted.
        """
        images, predicted, correct = accelerator.reduce(self.counts, 'sum').double().cpu()
        present, either = images > 0, images + predicted > 0
        recall = (correct / images)[present]
        f1 = (2 * correct / (images + predicted))[either]
        return {'balanced_accuracy': 100 * float(recall.mean()), 'macro_f1': 100 * float(f1.mean())}
