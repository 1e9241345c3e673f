"""What classifiers are trained with works for any model: reduced precision, accumulated gradients, an EMA."""

import copy

import torch
from helpers.any_model import SEGMENTATION, Segmenter, mask_loss

from timm_alfa import create_task

SEARCH = dict(blocks='stem,body', steps=2, step_size=0.05)


def made(dtype=torch.float64, **options):
    torch.manual_seed(0)
    model = Segmenter().to(dtype)
    task = create_task('alfa', model, **SEARCH, **SEGMENTATION, **options)
    return task, torch.randn(4, 3, 16, 16, dtype=dtype), torch.randint(5, (4,))


def test_in_bf16_a_step_is_about_the_same():
    losses, directions = [], []
    for enabled in (False, True):
        task, *batch = made(torch.float32)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            result = task(*batch)
        result['loss'].backward()
        losses.append([float(result['loss_clean']), float(result['loss_adv'])])
        directions.append(torch.cat([p.grad.flatten() for p in task.model.parameters()]))
    assert result['output']['mask'].dtype == torch.bfloat16
    assert losses[1][1] > losses[1][0], 'nothing was perturbed'
    torch.testing.assert_close(losses[1], losses[0], rtol=0.01, atol=0)
    assert torch.cosine_similarity(*directions, dim=0) > 0.99


def test_accumulated_halves_are_the_whole_batch():
    """The loss is a mean over the batch, and each image has a search of its own."""
    trained = []
    for parts in (1, 2):
        task, image, label = made()
        optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
        for batch in zip(image.chunk(parts), label.chunk(parts), strict=True):
            (task(*batch)['loss'] / parts).backward()
        optimizer.step()
        task.post_step()
        assert task.updates == 1
        trained.append(list(task.model.parameters()))
    torch.testing.assert_close(*trained, rtol=1e-9, atol=1e-9)


def test_an_ema_is_what_is_evaluated():
    task, *batch = made()
    task.setup_ema(decay=0.5)
    before = copy.deepcopy(task.model.state_dict())
    task(*batch)['loss'].backward()
    torch.optim.SGD(task.parameters(), lr=0.1).step()
    task.post_step()
    task.update_ema()  # without a number: at full decay from the first update on

    after, averaged = task.model.state_dict(), task.get_checkpoint_state(ema=True)['state_dict_ema']
    assert averaged.keys() == after.keys()
    for name, value in averaged.items():
        torch.testing.assert_close(value, (before[name] + after[name]) / 2)
    losses = [mask_loss(model(batch[0]), *batch) for model in (task.get_eval_model(ema=True), task.model)]
    assert losses[0] != losses[1]
