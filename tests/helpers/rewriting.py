"""ALFA written out without replays: every search step and every perturbed loss is a full forward pass with hooks.

Slow and plain on purpose: what the library computes is compared with this.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass
class Step:
    """What one training step gives: gradients by parameter name (None where nothing reaches), buffers by name."""

    loss: torch.Tensor
    logits: torch.Tensor
    grads: dict
    buffers: dict
    loss_adv: torch.Tensor
    delta_norm: torch.Tensor
    delta_ratio: torch.Tensor
    deltas: dict
    eta_grad: object = None


def leaves(value):
    """Floating-point tensors of a feature, in order."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [x for item in values for x in leaves(item)]


def rebuilt(value, rest):
    """The feature with tensors from an iterator in place of those it has."""
    if isinstance(value, torch.Tensor):
        return next(rest) if value.is_floating_point() else value
    if isinstance(value, dict):
        return type(value)({k: rebuilt(v, rest) for k, v in value.items()})
    return type(value)(rebuilt(v, rest) for v in value) if isinstance(value, (list, tuple)) else value


@contextmanager
def hooked(model, hooks):
    with ExitStack() as stack:
        for name, hook in hooks.items():
            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        yield


@contextmanager
def swapped(model, others):
    """Other modules in place of some, by name."""

    def put(name, module):
        parent, _, child = name.rpartition('.')
        model.get_submodule(parent)._modules[child] = module

    before = {name: model.get_submodule(name) for name in others}
    try:
        for name, module in others.items():
            put(name, module)
        yield
    finally:
        for name, module in before.items():
            put(name, module)


def norm_names(model):
    return [
        n
        for n, m in model.named_modules()
        if any(b is not None and k.startswith('running') for k, b in m._buffers.items())
    ]


def order_of_calls(model, names, run):
    """By feature, the modules whose calls begin before it is there and never after; and the features in order."""
    events = []
    with ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(lambda m, a, n=name: events.append(('in', n))).remove)
            if name in names:
                stack.callback(module.register_forward_hook(lambda m, a, o, n=name: events.append(('out', n))).remove)
        with torch.no_grad():
            run()
    order = [n for kind, n in events if kind == 'out']
    after = {f: {n for kind, n in events[events.index(('out', f)) :] if kind == 'in'} for f in names}
    seen = {n for _, n in events}
    return order, {f: seen - after[f] for f in names}


def direction(grad, norm):
    if norm == 'linf':
        return torch.sign(grad)
    rows = grad.reshape(len(grad), -1)
    lengths = (rows**2).sum(1).sqrt()
    rows = torch.stack([row / n if n > 0 else row * 0 for row, n in zip(rows, lengths, strict=True)])
    return rows.reshape(grad.shape)


def bounded(delta, eps, norm):
    if eps is None:
        return delta
    if norm == 'linf':
        return torch.minimum(torch.maximum(delta, delta * 0 - eps), delta * 0 + eps)
    lengths = (delta.reshape(len(delta), -1) ** 2).sum(1).sqrt()
    return torch.stack([d * (eps / n) if n > eps else d for d, n in zip(delta, lengths, strict=True)])


class Rewriting:
    """One model, its features, and the generator's state at which every pass starts.

    Args:
        run: Calls the model on the batch.
        loss: Of what that returns.
    """

    def __init__(self, model, names, run, loss, aux=None):
        self.model, self.names, self.run, self.loss_of = model, names, run, loss
        self.aux = aux or {}
        self.rng = torch.get_rng_state()
        before = self.buffers()
        self.order, self.before = order_of_calls(model, names, run)
        self.restore(before)
        self.params = dict(model.named_parameters())

    def buffers(self):
        return {k: v.clone() for k, v in self.model.named_buffers()}

    def restore(self, buffers, only=None):
        with torch.no_grad():
            for k, v in self.model.named_buffers():
                if only is None or k.rpartition('.')[0] in only:
                    v.copy_(buffers[k])

    def loss(self, group=(), deltas=None, cut=False):
        """Loss of a full pass with perturbations added; the earliest feature cut from what is before it."""
        torch.set_rng_state(self.rng)
        first = min(group, key=self.order.index) if group else None

        def adds(name):
            def hook(module, args, output):
                cuts = cut and name == first
                moved = [(f.detach() if cuts else f) + d for f, d in zip(leaves(output), deltas[name], strict=True)]
                return rebuilt(output, iter(moved))

            return hook

        late = {n: m for n, m in self.aux.items() if group and n not in self.before[first]}
        with swapped(self.model, late), hooked(self.model, {n: adds(n) for n in group}):
            output = self.run()
        return self.loss_of(output), output

    def gradients(self, loss, extra=()):
        params = [p for p in self.params.values() if p.requires_grad]
        others = [p for m in self.aux.values() for p in m.parameters()]
        grads = torch.autograd.grad(loss, [*params, *others, *extra], allow_unused=True)
        names = [n for n, p in self.params.items() if p.requires_grad]
        names += [f'aux:{n}.{k}' for n, m in self.aux.items() for k, _ in m.named_parameters()]
        return dict(zip(names, grads, strict=False)), grads[len(names) :]

    def drop_front(self, grads, group):
        """Gradients that reach what ran before the feature by another way than the feature: 'tail' has none."""
        first = min(group, key=self.order.index)
        parts = first.split('.')
        above = {'.'.join(parts[:n]) for n in range(len(parts))}
        return {
            k: None if not k.startswith('aux:') and k.rpartition('.')[0] in self.before[first] - above else g
            for k, g in grads.items()
        }


def plain_step(model, names, input, target, criterion=F.cross_entropy, **options):
    """One step of ALFA on a classifier (equations 3 to 5)."""
    return general_step(model, names, lambda: model(input), lambda logits: criterion(logits, target), **options)


def general_step(
    model,
    names,
    run,
    loss,
    *,
    steps=5,
    step_size=1 / 255,
    eps=None,
    norm='linf',
    unit='absolute',
    random_start=False,
    weight=1.0,
    reduction='sum',
    grad='full',
    bn='clean',
    mode='separate',
    eta=None,
    gamma=1.0,
    aux=None,
):
    """One step of ALFA (equations 3 to 5)."""
    at = Rewriting(model, names, run, loss, aux if bn == 'aux' else None)
    features = {}
    with hooked(
        model, {n: lambda m, a, o, n=n: features.update({n: [x.detach().clone() for x in leaves(o)]}) for n in names}
    ):
        loss_clean, logits = at.loss()
    stream = torch.get_rng_state()
    total, _ = at.gradients(loss_clean)
    groups = [tuple(names)] if mode == 'joint' else [(n,) for n in names]
    step_sizes = dict(zip(names, step_size if isinstance(step_size, tuple) else [step_size] * len(names), strict=True))
    weights = weight if isinstance(weight, tuple) else [weight] * len(groups)
    whole = 1.0 if reduction == 'sum' else 1 + sum(weights) / len(weights)
    by_group = [w / whole if reduction == 'sum' else w / len(groups) / whole for w in weights]
    clean_share = 1 / whole
    total = {k: None if g is None else clean_share * g for k, g in total.items()}
    buffers, losses, moved_by, eta_grad, norms, ratios = at.buffers(), [], {}, None, [], []
    for group, shares in zip(groups, by_group, strict=True):
        torch.set_rng_state(stream)
        lengths = {n: [_length(f, unit, norm) for f in features[n]] for n in group}
        deltas = {
            n: [
                _start(f, random_start, step_sizes[n] * by, None if eps is None else eps * by, norm)
                for f, by in zip(features[n], lengths[n], strict=True)
            ]
            for n in group
        }
        stream = torch.get_rng_state()
        norm_buffers = {n: {k: v.clone() for k, v in m._buffers.items()} for n, m in at.aux.items()}
        for _ in range(steps):
            flat = [d.requires_grad_() for n in group for d in deltas[n]]
            loss, _ = at.loss(group, deltas)
            found = torch.autograd.grad(loss, flat, allow_unused=True)
            grads = iter([torch.zeros_like(d) if g is None else g for d, g in zip(flat, found, strict=True)])
            deltas = {
                n: [
                    bounded(
                        d.detach() + step_sizes[n] * by * direction(next(grads), norm),
                        None if eps is None else eps * by,
                        norm,
                    )
                    for d, by in zip(deltas[n], lengths[n], strict=True)
                ]
                for n in group
            }
            at.restore(buffers)
            for n, m in at.aux.items():
                for k, v in norm_buffers[n].items():
                    m._buffers[k].copy_(v)
        deltas = {n: [d.detach() for d in ds] for n, ds in deltas.items()}
        moved_by.update(deltas)
        norms.append(sum((d.reshape(len(d), -1) ** 2).sum(1) for n in group for d in deltas[n]).sqrt().mean())
        added = deltas if eta is None else {n: [eta[names.index(n)] * d for d in ds] for n, ds in deltas.items()}
        ratios.append(_length_of(added, group) / _length_of(features, group))
        loss, _ = at.loss(group, added, cut=grad == 'tail')
        found, of_eta = at.gradients(loss, [eta] if eta is not None else [])
        if grad == 'tail':
            found = at.drop_front(found, group)
        for k, g in found.items():
            if g is not None:
                total[k] = shares * g if total.get(k) is None else total[k] + shares * g
        if eta is not None:
            eta_grad = shares * of_eta[0] + (0 if eta_grad is None else eta_grad)
        losses.append(loss.detach())
        first = min(group, key=at.order.index)
        at.restore(buffers, only=at.before[first] if bn == 'shared' else None)
        buffers = at.buffers()
    torch.set_rng_state(stream)
    loss = clean_share * loss_clean.detach() + sum(w * value for w, value in zip(by_group, losses, strict=True))
    if eta is not None:
        loss, eta_grad = loss + gamma * eta.detach().abs().sum(), eta_grad + gamma * torch.sign(eta.detach())
    return Step(
        loss,
        getattr(logits, 'detach', lambda: logits)(),
        total,
        buffers,
        torch.stack(losses).mean(),
        torch.stack(norms).mean(),
        torch.stack(ratios).mean(),
        moved_by,
        eta_grad,
    )


def _length_of(values, group):
    """The mean over samples of the norm of all tensors together."""
    batch = min(len(x) for n in group for x in values[n])
    squares = sum((x.detach().reshape(batch, -1) ** 2).sum(1) for n in group for x in values[n])
    return squares.sqrt().mean()


def _length(feature, unit, norm):
    """What a size of 1 is: 1, or as large as the feature is in the mean, in the norm."""
    if unit == 'absolute':
        return 1.0
    if norm == 'linf':
        return float((feature**2).mean() ** 0.5)
    return float(((feature**2).sum() / len(feature)) ** 0.5)


def _start(feature, random_start, step_size, eps, norm):
    delta = torch.zeros_like(feature)
    if not random_start:
        return delta
    radius = step_size if eps is None else eps
    if norm == 'linf':
        return delta.uniform_(-radius, radius)
    # a radius that fills the ball evenly, then a direction
    share = torch.rand(len(delta), dtype=delta.dtype) ** (1 / delta[0].numel())
    ray = torch.randn_like(delta).flatten(1)
    return (radius * share[:, None] * ray / ray.norm(dim=1, keepdim=True)).view_as(delta)
