"""Balanced accuracy and macro F1 are scikit-learn's, over batches and with classes that are missing."""

import pytest
import torch
from accelerate import Accelerator
from sklearn.metrics import balanced_accuracy_score, f1_score

from timm_alfa.training.class_scores import ClassScores


@pytest.mark.filterwarnings('ignore:y_pred contains classes not in y_true')
def test_scores_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 9, generator=generator)
    logits[:, 7:] -= 20  # never predicted; class 8 has no images either
    target = torch.randint(8, (200,), generator=generator)
    target[target == 3] = 2  # predicted, but without images
    scores = ClassScores(9, torch.device('cpu'))
    for batch in torch.arange(200).split(64):
        scores.add(batch, logits[batch], target[batch])
    predicted = logits.argmax(-1)
    assert scores.compute(Accelerator(cpu=True)) == pytest.approx(
        dict(
            balanced_accuracy=100 * balanced_accuracy_score(target, predicted),
            macro_f1=100 * f1_score(target, predicted, average='macro', zero_division=0),
        )
    )
