"""ISDA against its definition, with covariances of all features seen so far, image by image."""

import copy

import pytest
import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from helpers.forkserver import run_ranks
from helpers.settings import CLASSES, assert_same_grads, check_standard_step, gradients, tiny
from torch import nn

from timm_alfa import create_task
from timm_alfa.errors import ConfigError
from timm_alfa.perturb.covariance import Moments, joined, logit_variances, moments_of


def plain_moments(features, shares, diagonal=False):
    """Count, mean and covariance of each class, from all features at once; zeros for classes without any."""
    count, size = shares.sum(0), features.shape[1]
    means, covs = torch.zeros(len(count), size).double(), torch.zeros(len(count), size, size).double()
    for c in range(len(count)):
        for feature, share in zip(features, shares[:, c], strict=True):
            means[c] += share * feature / (count[c] if count[c] else 1)
        for feature, share in zip(features, shares[:, c], strict=True):
            covs[c] += share * torch.outer(feature - means[c], feature - means[c]) / (count[c] if count[c] else 1)
    return Moments(count, means, torch.stack([cov.diag() for cov in covs]) if diagonal else covs)


def plain_loss(logits, target, weight, cov, strength):
    """The bound of proposition 1, term by term."""
    losses = []
    for z, y in zip(logits, target.tolist(), strict=True):
        sigma = cov[y].diag() if cov.dim() == 2 else cov[y]
        terms = [strength / 2 * (weight[j] - weight[y]) @ sigma @ (weight[j] - weight[y]) for j in range(len(weight))]
        losses.append(-torch.log_softmax(z + torch.stack(terms), 0)[y])
    return torch.stack(losses).mean()


def shares_of(kind, count, classes=4):
    if kind == 'soft':
        return torch.rand(count, classes).double().softmax(1)
    return F.one_hot(torch.randint(3, (count,)), classes).double()  # the last class has no feature


@pytest.mark.parametrize('kind', ['hard', 'soft'])
@pytest.mark.parametrize('diagonal', [False, True])
def test_statistics_of_batches_are_those_of_all(kind, diagonal):
    torch.manual_seed(0)
    features, shares = torch.randn(20, 6).double() * 3 + 50, shares_of(kind, 20)
    found = Moments(*(torch.zeros_like(x) for x in plain_moments(features, shares, diagonal)))
    for rows in (slice(0, 1), slice(1, 9), slice(9, 20)):
        found = joined(found, moments_of(features[rows], shares[rows], diagonal))
    for got, want in zip(found, plain_moments(features, shares, diagonal), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_a_diagonal_is_a_full_matrix_with_zeros():
    weight, variances = torch.randn(5, 7).double(), torch.rand(5, 7).double()
    full = logit_variances(weight, torch.stack([v.diag() for v in variances]))
    torch.testing.assert_close(logit_variances(weight, variances), full, rtol=1e-9, atol=1e-12)
    assert (full.diag() == 0).all()


def last_features(model, input):
    return model.forward_head(model.forward_features(input), pre_logits=True)


@pytest.mark.parametrize('arch', ['resnet20s', 'test_vit'])
@pytest.mark.parametrize('covariance', ['full', 'diagonal'])
def test_steps_are_the_definition(arch, covariance):
    model, input, target = tiny(arch, 32 if 'vit' in arch else 16, batch=8)
    plain, seen = copy.deepcopy(model), []
    task = create_task('isda', model, nn.CrossEntropyLoss(), strength=300.0, ramp=4, covariance=covariance)
    for step in range(6):
        seen.append(last_features(plain, input).detach())
        plain.load_state_dict(model.state_dict())
        shares = F.one_hot(target, CLASSES).double().repeat(step + 1, 1)
        cov = plain_moments(torch.cat(seen), shares, covariance == 'diagonal').cov
        layer = plain.get_classifier()
        logits = plain(input)
        loss = plain_loss(logits, target, layer.weight, cov, 300.0 * min(step / 4, 1))
        plain.zero_grad()
        loss.backward()

        task.zero_grad()
        result = task(input, target)
        result['loss'].backward()
        torch.testing.assert_close(result['loss'].detach(), loss.detach(), rtol=1e-9, atol=1e-12)
        assert torch.equal(result['output'], logits)
        torch.testing.assert_close(result['loss_clean'], F.cross_entropy(logits, target).detach())
        assert torch.equal(result['loss_adv'], result['loss'].detach())
        assert_same_grads(gradients(model), gradients(plain))
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(0.02 * p.grad)
        plain.load_state_dict(model.state_dict())
        task.post_step()
    assert result['loss'] > 1.01 * result['loss_clean']


def test_it_is_an_upper_bound_of_drawn_features():
    """Proposition 1: what the closed form stands for."""
    torch.manual_seed(0)
    weight, bias = torch.randn(4, 3).double(), torch.randn(4).double()
    feature, cov = torch.randn(1, 3).double(), torch.rand(4, 3).double() * 0.1
    y, strength = torch.tensor([1]), 0.8
    drawn = feature + torch.randn(20000, 3).double() * (strength * cov[1]).sqrt()
    expected = F.cross_entropy(drawn @ weight.T + bias, y.expand(20000))
    bound = plain_loss(feature @ weight.T + bias, y, weight, cov, strength)
    clean = F.cross_entropy(feature @ weight.T + bias, y)
    assert clean < expected < bound < expected + 0.5 * (expected - clean)


def test_soft_targets_share_the_terms():
    model, input, _ = tiny(size=16)
    soft = torch.rand(4, CLASSES).double().softmax(1)
    task = create_task('isda', copy.deepcopy(model), nn.CrossEntropyLoss(), strength=2.0, ramp=1)
    task.post_step()
    result = task(input, soft)
    cov = plain_moments(last_features(copy.deepcopy(model), input).detach(), soft).cov
    variances = logit_variances(model.fc.weight, cov)
    want = F.cross_entropy(model(input) + soft @ variances, soft)
    torch.testing.assert_close(result['loss'], want, rtol=1e-9, atol=1e-12)


def test_two_graphs_may_wait_for_one_backward_pass():
    model, input, target = tiny(size=16)
    task = create_task('isda', model, strength=2.0, ramp=1)
    task.post_step()
    (task(input, target)['loss'] + task(input, target)['loss']).backward()


def test_the_strength_needs_the_number_of_updates():
    model, input, target = tiny(size=16, dtype=torch.float32)
    task = create_task('isda', model, strength=0.5)
    assert task(input, target)['loss'] == task(input, target)['loss_clean']  # it starts at 0, whatever the number
    task.post_step()
    with pytest.raises(ConfigError, match=r'pass ramp=N, the number of updates, or set task\.total_updates'):
        task(input, target)
    task.total_updates = 8
    assert task.strength() == 0.5 / 8
    for _ in range(20):
        task.post_step()
    assert task.strength() == 0.5


def test_without_strength_it_is_standard_training():
    check_standard_step('isda', strength=0)


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 5, 1)

    def get_classifier(self):
        return self.head


class Shared(nn.Module):
    """Calls its classifier on every position, or twice."""

    def __init__(self, twice):
        super().__init__()
        self.head, self.twice = nn.Linear(3, 5), twice

    def get_classifier(self):
        return self.head

    def forward(self, x):
        if self.twice:
            return self.head(x[:, :, 0, 0]) + self.head(x[:, :, 0, 1])
        return self.head(x.flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (nn.Linear(2, 2), r'Linear has no get_classifier\(\)'),
        (Convolutional(), 'Convolutional has Conv2d'),
        (timm.create_model('test_vit', num_classes=0), 'has Identity'),
    ],
    ids=['plain', 'conv', 'none'],
)
def test_other_classifiers_are_refused(model, message):
    with pytest.raises(ConfigError, match=f'single linear classifier, and .*{message}: choose another'):
        create_task('isda', model)


@pytest.mark.parametrize(
    ('twice', 'message'), [(False, r'shape \[4, 256, 3\]'), (True, r'.head. is called 2 times in a forward pass')]
)
def test_other_calls_of_the_classifier_are_refused(twice, message):
    _, input, target = tiny(size=16, dtype=torch.float32)
    with pytest.raises(ConfigError, match=message):
        create_task('isda', Shared(twice))(input, target)


def test_covariances_that_fill_a_gpu_are_refused():
    with torch.device('meta'):
        model = timm.create_model('resnet50')
        with pytest.raises(ConfigError, match=r"15\.6 GiB for 1000 classes of 2048 features.*covariance='diagonal'"):
            create_task('isda', model)
        create_task('isda', model, covariance='diagonal')


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_statistics_are_in_single_precision(dtype):
    model, input, target = tiny(size=16, dtype=torch.float32)
    task, half = create_task('isda', copy.deepcopy(model)), create_task('isda', model)
    task(input, target)
    with torch.autocast('cpu', dtype):
        half(input, target)
    for a, b in zip(task.get_extra('statistics').buffers(), half.get_extra('statistics').buffers(), strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


def _rank(rank, file):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{file}', rank=rank, world_size=2)
    try:
        features, shares = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), shares_of('hard', 8).float()
        dist.broadcast(shares, 0)
        statistics = create_task('isda', timm.create_model('test_vit', num_classes=4)).get_extra('statistics')
        statistics.running_mean, statistics.running_cov = torch.zeros(4, 3), torch.zeros(4, 3, 3)
        found = statistics.add(features[rank * 4 : rank * 4 + 4], shares[rank * 4 : rank * 4 + 4])
        for got, want in zip(found, moments_of(features, shares, False), strict=True):
            assert torch.equal(got, want)
    finally:
        dist.destroy_process_group()


def test_processes_share_their_statistics(tmp_path):
    run_ranks(_rank, (str(tmp_path / 'rendezvous'),), 2)
