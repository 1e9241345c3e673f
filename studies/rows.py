"""Every run there is a recipe for: names, and the flags of train.py behind them."""
from dataclasses import dataclass, field
from typing import Any, Iterator

from studies import protocols as p
from studies.protocols import ADV_TRAIN, ADVPROP, DOUBLED, MOEX, NOISE, STANDARD, alfa, l_alfa


@dataclass(frozen=True)
class Recipe:
    """One row of a study.

    Args:
        name: Of its file in recipes/.
        options: Keys of train.py; everything but the seed.
        seeds: How many seeds are run unless the command line says otherwise.
        mixed_precision: For accelerate.
        robust: Whether accuracy under attack is measured afterwards, by validate.py.
    """
    name: str
    options: dict[str, Any] = field(hash=False)
    seeds: int = 5
    mixed_precision: str = 'no'
    robust: bool = False


_NETWORKS = {'resnet20s': 'resnet20s', 'resnet56s': 'resnet56s', 'resnet18': 'resnet18_cifar',
             'resnet50': 'resnet50_cifar', 'resnet101': 'resnet101_cifar'}
# The step size of table 2, with which every other row of that network is run.
STEP = {'resnet20s': '0.5', 'resnet56s': '1.5', 'resnet18': '1.0', 'resnet50': '1.5', 'resnet101': '1.0'}
# ALFA on other blocks than the last, as stage numbers (figures 2 and 3; which combinations they show is not printed).
BLOCKS = {'resnet20s': ('1', '2', '2,3', '1,2,3'), 'resnet56s': ('1', '2', '2,3', '1,2,3'),
          'resnet18': ('1', '2', '3', '3,4', '2,3,4', '1,2,3,4')}
STEPS = ('0.5', '1.0', '1.5', '2.0')
GAMMAS = (0.1, 0.2, 0.5, 1.0, 2.0, 10.0)
WIDTHS = {'quarter': [4, 8, 16], 'half': [8, 16, 32], 'once': [16, 32, 64], 'double': [32, 64, 128]}  # of resnet20s
# Factors of four: a few seeds cannot tell steps apart that lie closer.
WIDTH_STEPS = ('0.5', '2', '8')
REGULARISERS = {'smoothing': dict(smoothing=0.1), 'mixup': dict(mixup=0.2),
                'ema': dict(model_ema=True, model_ema_decay=0.99)}


def dashed(blocks: str) -> str:
    """A block spec as part of a file's name."""
    return blocks.replace(',', '-')


def _cifar10() -> Iterator[Recipe]:
    for network, model in _NETWORKS.items():
        def row(name: str, options: dict, model=model, network=network, robust=False) -> Recipe:
            options = dict(model=model, **options, **p.CIFAR10, **p.PAPER_CIFAR)
            return Recipe(f'cifar10_{network}{name}', options, robust=robust)

        best, robust = STEP[network], network == 'resnet18'
        yield row('', STANDARD, robust=robust)
        full = network in ('resnet20s', 'resnet56s', 'resnet18')
        for step in (*STEPS, '4.0') if network == 'resnet18' else STEPS if full else (best,):
            yield row(f'_alfa_step{step}', alfa(step), robust=robust and step == best)
        for blocks in BLOCKS.get(network, ()):
            yield row(f'_alfa_block{dashed(blocks)}', alfa(best, blocks=blocks))
        if full:
            yield row('_double', DOUBLED)
            yield row('_noise', NOISE)
            yield row('_moex', MOEX)
            yield row('_l_alfa', l_alfa())
        if network == 'resnet18':
            for steps in (1, 3, 7, 10):
                yield row(f'_alfa_k{steps}', alfa(best, steps))
            yield row('_advprop', ADVPROP)
            yield row('_adv_train', ADV_TRAIN, robust=True)
            yield row('_l_alfa_dim4', l_alfa('all'))
            yield row('_l_alfa_dim20', l_alfa('convs'))


def _cifar100() -> Iterator[Recipe]:
    for network in ('resnet20s', 'resnet56s'):
        shared = dict(model=network, **p.CIFAR100, **p.PAPER_CIFAR)
        yield Recipe(f'cifar100_{network}', {**shared, **STANDARD})
        yield Recipe(f'cifar100_{network}_alfa_step0.5', {**shared, **alfa('0.5')})
    for gamma in GAMMAS:
        yield Recipe(f'cifar100_resnet56s_l_alfa_gamma{gamma:g}', {**shared, **l_alfa(gamma=gamma)})


def _imagenet() -> Iterator[Recipe]:
    for network in ('resnet18', 'resnet50', 'resnet101', 'resnet152', 'efficientnet_b0'):
        shared = dict(model=network, **p.IMAGENET, **p.PAPER_IMAGENET)
        if network == 'efficientnet_b0':
            shared.update(batch_size=256, lr=0.1)
        else:
            shared.update(model_kwargs=dict(zero_init_last=False))  # as torchvision's
        yield Recipe(f'imagenet_{network}', {**shared, **STANDARD}, seeds=1)
        yield Recipe(f'imagenet_{network}_alfa_k1', {**shared, **alfa('0.5', 1)}, seeds=1)
        for steps in (3, 5) if network == 'resnet18' else ():
            yield Recipe(f'imagenet_{network}_alfa_k{steps}', {**shared, **alfa('0.5', steps)}, seeds=1)
        if network == 'resnet50':
            yield Recipe('imagenet_resnet50_l_alfa', {**shared, **l_alfa()}, seeds=1)
        if network == 'efficientnet_b0':
            yield Recipe('imagenet_efficientnet_b0_advprop', {**shared, **ADVPROP}, seeds=1)


def _small() -> Iterator[Recipe]:
    """For two cores: ResNet-20s on 5,000 images."""
    def row(name: str, options: dict, seeds: int = 1) -> Recipe:
        return Recipe(f'small{name}', dict(model='resnet20s', **options, **p.CIFAR10, **p.SMALL), seeds, 'bf16')

    yield row('', STANDARD, 6)
    yield row('_alfa', alfa('0.5'), 6)
    yield row('_double', DOUBLED, 6)
    yield row('_alfa_mean', alfa('0.5', alfa_reduction='mean'))
    yield row('_noise', NOISE, 3)
    yield row('_moex', MOEX, 3)
    yield row('_l_alfa', l_alfa(alfa_mode='joint'), 2)
    yield row('_alfa_tail', alfa('0.5', alfa_grad='tail'))
    yield row('_alfa_preact', alfa('0.5', blocks='layer3.2.bn2'))
    for step in WIDTH_STEPS[1:]:
        yield row(f'_alfa_step{step}', alfa(step), 3)
    yield row('_advprop', ADVPROP)
    for blocks in BLOCKS['resnet20s']:
        yield row(f'_alfa_block{dashed(blocks)}', alfa('0.5', blocks=blocks), 3)
    yield row('_triple', dict(STANDARD, standard_weight=3.0), 3)
    yield row('_quadruple', dict(STANDARD, standard_weight=4.0), 3)
    for name, options in REGULARISERS.items():
        yield row(f'_{name}', {**STANDARD, **options}, 3)
        yield row(f'_double_{name}', {**DOUBLED, **options}, 3)
        yield row(f'_alfa_{name}', {**alfa('0.5'), **options}, 3)
    for width in ('quarter', 'half', 'double'):
        options = dict(model_kwargs=dict(channels=WIDTHS[width]))
        yield row(f'_{width}_width_double', {**DOUBLED, **options}, 3)
        for step in WIDTH_STEPS:
            yield row(f'_{width}_width_alfa_step{step}', {**alfa(step), **options}, 3)


def _weights() -> Iterator[Recipe]:
    """What ships: all of CIFAR-10, on one core."""
    shared = dict(model='resnet20s', **p.CIFAR10, **p.SHORT)
    # a learned search on nine blocks in every step would take four times as long
    learned = l_alfa(alfa_mode='joint', alfa_every=4)
    learned.update(alfa_steps=1)
    for name, options in (('', STANDARD), ('_alfa', alfa('0.5')), ('_l_alfa', learned)):
        yield Recipe(f'weights_resnet20s{name}', {**shared, **options}, 1, 'bf16')


def _cost() -> Iterator[Recipe]:
    """What a step costs against K, on the last stage and on the first."""
    shared = dict(model='resnet20s', **p.CIFAR10, **p.COST)
    yield Recipe('cost', {**shared, **STANDARD}, seeds=1)
    yield Recipe('cost_advprop', {**shared, **ADVPROP}, seeds=1)
    for blocks, steps in (('last', (1, 3, 5, 7, 10)), ('1', (1, 3, 5, 7, 10))):
        for k in steps:
            yield Recipe(f'cost_alfa_{blocks}_k{k}', {**shared, **alfa('0.5', k, blocks)}, seeds=1)


def _smoke() -> Iterator[Recipe]:
    shared = dict(model='resnet20s', model_kwargs=dict(channels=[4, 8, 8]), **p.SMOKE)
    yield Recipe('smoke', {**shared, **STANDARD}, seeds=2)
    yield Recipe('smoke_alfa', {**shared, **alfa('0.5', 1)}, seeds=2)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for source in (_cifar10, _cifar100, _imagenet, _small, _weights, _cost, _smoke) for recipe in source()}
