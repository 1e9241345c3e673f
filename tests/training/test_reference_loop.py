"""Runs are held to a plain loop written out here: what is trained, averaged, validated, chosen and scored."""

import copy
import hashlib
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch.nn.functional import cross_entropy

from timm_alfa.training import trainer
from timm_alfa.training.train import train

LR, SEED, SUBSET, BATCH, ACCUMULATED, CLIP = 0.05, 7, 52, 8, 4, 4.3
STANDARD = (
    *('--task', 'standard', '--no-aug', '--sched', 'cosine', '--lr', str(LR), '--seed', str(SEED), '-vb', '100'),
    # six batches, and four images are dropped: windows of four and of two
    *(
        '--train-subset',
        str(SUBSET),
        '-b',
        str(BATCH),
        '--grad-accum-steps',
        str(ACCUMULATED),
        '--clip-grad',
        str(CLIP),
    ),
)


@dataclass
class Plain:
    """What a plain loop leaves after each epoch."""

    model: torch.nn.Module
    ema: torch.nn.Module
    weights: list = field(default_factory=list)
    averages: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    orders: list = field(default_factory=list)


def images_of(loader):
    """Every image and label of a loader's subset, by the image's index in its source."""
    found = {}
    for input, target in loader:
        found.update((int(at), pair) for at, *pair in zip(loader.last_indices, input.clone(), target, strict=True))
    return found


def order_of(epoch):
    """Positions in the subset of an epoch, by a hash of what it depends on."""
    digest = hashlib.blake2b(repr(('order', SEED, epoch)).encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, 'little') >> 1)
    return torch.randperm(SUBSET, generator=generator).tolist()


def decay_of(update, decay, warms_up):
    """Of the EMA after the update of this number, from 1: the first one copies the weights."""
    if update == 1:
        return 0.0
    return min(decay, 1 - update ** (-2 / 3)) if warms_up else decay


@torch.no_grad()
def scores(model, images):
    """Mean loss and percent of right answers, image by image in eval mode."""
    model = copy.deepcopy(model).eval()
    inputs, targets = (torch.stack(each) for each in zip(*images, strict=True))
    output = model(inputs)
    return float(cross_entropy(output, targets)), float((output.argmax(-1) == targets).float().mean() * 100)


def plain_loop(run, train_images, val_images, epochs, decay=None, warms_up=False):
    """Training written out: SGD with Nesterov momentum, accumulation, clipping, a cosine and an EMA."""
    plain = Plain(copy.deepcopy(run.model).train(), copy.deepcopy(run.model).eval())
    parameters = list(plain.model.parameters())
    decayed, rest = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{'params': rest, 'weight_decay': 0.0}, {'params': decayed, 'weight_decay': 5e-4}]
    optimizer = torch.optim.SGD(groups, lr=LR, momentum=0.9, nesterov=True)
    sorted_indices, update = sorted(train_images), 0
    batches = SUBSET // BATCH
    total = epochs * math.ceil(batches / ACCUMULATED)

    for epoch in range(epochs):
        order, loss_sum, right = [sorted_indices[at] for at in order_of(epoch)], 0.0, 0
        plain.orders.append(order[: batches * BATCH])
        for first in range(0, batches, ACCUMULATED):
            window = range(first, min(first + ACCUMULATED, batches))
            for group in optimizer.param_groups:
                group['lr'] = 0.5 * LR * (1 + math.cos(math.pi * update / total))
            # the mean over the window's batches
            for batch in window:
                pairs = [train_images[index] for index in order[batch * BATCH : (batch + 1) * BATCH]]
                input, target = (torch.stack(each) for each in zip(*pairs, strict=True))
                output = plain.model(input)
                loss = cross_entropy(output, target)
                (loss / len(window)).backward()
                loss_sum += float(loss.detach()) * BATCH
                right += int((output.argmax(-1) == target).sum())
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            optimizer.zero_grad()
            update += 1
            if decay is not None:
                share = 1 - decay_of(update, decay, warms_up)
                for average, value in zip(
                    plain.ema.state_dict().values(), plain.model.state_dict().values(), strict=True
                ):
                    average.lerp_(value, share) if average.is_floating_point() else average.copy_(value)
        # the epoch's row
        plain.weights.append(copy.deepcopy(plain.model).eval())
        plain.averages.append(copy.deepcopy(plain.ema))
        plain.rows.append(dict(train_loss=loss_sum / (batches * BATCH), train_top1=100 * right / (batches * BATCH)))
        evaluated = plain.model if decay is None else plain.ema
        plain.rows[-1].update(zip(('val_loss', 'val_top1'), scores(evaluated, val_images), strict=True))
        if decay is not None:
            own = scores(plain.model, val_images)
            plain.rows[-1].update(zip(('val_loss_not_averaged', 'val_top1_not_averaged'), own, strict=True))
        plain.rows[-1]['lr'] = optimizer.param_groups[0]['lr']
    return plain


def assert_same_weights(found, model):
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-6, msg=lambda m, key=key: f'{key}: {m}')


@pytest.mark.parametrize(
    ('options', 'decay', 'warms_up'),
    [
        ((), None, False),
        (('--model-ema', '--model-ema-decay', '0.6', '--model-ema-warmup'), 0.6, True),
    ],
    ids=['plain', 'ema'],
)
def test_a_run_is_the_plain_loop(options, decay, warms_up, runs, monkeypatch):
    """Three epochs, the second and third of which score alike: the best is the second one, and the last another."""
    run = runs.prepare(*STANDARD, '--val-fraction', '0.1', '--epochs', '3', *options)
    train_images = {}
    for epoch in range(9):  # each drops four images
        run.data.train.set_epoch(epoch, 0)
        train_images.update(images_of(run.data.train))
    assert len(train_images) == SUBSET
    val_images, test_images = (list(images_of(loader).values()) for loader in (run.data.val, run.data.test))
    plain = plain_loop(run, train_images, val_images, 3, decay, warms_up)

    # what the run sees and what it is told that it scored
    seen, measured, told, original = [], [], iter([40.0, 60.0, 60.0]), trainer.evaluate
    update = trainer.Trainer.update

    def watched(self, window):
        seen.append([int(index) for batch in window for index in batch.indices])
        return update(self, window)

    def evaluate(model, *args):
        metrics = original(model, *args)
        measured.append((metrics['loss'], metrics['top1']))
        return {**metrics, 'top1': next(told)} if 'correct_images' in metrics else metrics

    monkeypatch.setattr(trainer.Trainer, 'update', watched)
    monkeypatch.setattr(trainer, 'evaluate', evaluate)
    record = train(run)

    # order, weights, sums
    orders = [seen[at] + seen[at + 1] for at in range(0, len(seen), 2)]
    assert orders == plain.orders
    saved = plain.weights if decay is None else plain.averages
    assert_same_weights(runs.weights('run'), saved[2])
    if decay is not None:
        assert_same_weights(run.model.state_dict(), plain.weights[2])
    names = ['train_loss', 'train_top1', 'val_loss', 'lr'] + ['val_loss_not_averaged'] * (decay is not None)
    for row, expected in zip(runs.rows('run'), plain.rows, strict=True):
        assert {name: float(row[name]) for name in names} == pytest.approx({name: expected[name] for name in names})
    assert [top1 for _, top1 in measured[:: 1 if decay is None else 2]] == pytest.approx(
        [row['val_top1'] for row in plain.rows]
    )

    # the best epoch, and the score of its weights
    assert (record['best_epoch'], record['val_top1']) == (2, 60.0)
    assert record['val_loss'] == pytest.approx(plain.rows[1]['val_loss'])
    assert_same_weights(runs.weights('run', 'model_best.safetensors'), saved[1])
    best, last = (scores(saved[epoch], test_images) for epoch in (1, 2))
    assert (record['test_loss'], record['test_top1']) == pytest.approx(best) != pytest.approx(last)
