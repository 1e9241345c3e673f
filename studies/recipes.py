"""All recipes: their names, and the options of train.py that each one stands for."""

from dataclasses import dataclass, field, replace
from typing import Iterator

from studies import protocols as p
from studies.protocols import (
    ADV_TRAIN,
    ADVPROP,
    DOUBLED,
    DOUBLED_RATE,
    ISDA,
    MOEX,
    NOISE,
    SAM,
    SAM_RARELY,
    STANDARD,
    Options,
    alfa,
    l_alfa,
)


@dataclass(frozen=True)
class Recipe:
    """One row of a study.

    Attributes:
        name: Identifies the recipe in tables, records and commands.
        options: Keys of train.py, all but the seed.
        family: Folder of its file below recipes/.
        seeds: Number of seeds to run unless the command line says otherwise.
        mixed_precision: For accelerate.
        robust: Whether validate.py measures accuracy under attack after training.
        first_seed: The lowest of these seeds.
    """

    name: str
    options: Options = field(hash=False)
    family: str = 'paper'
    seeds: int = 5
    mixed_precision: str = 'no'
    robust: bool = False
    first_seed: int = 0

    @property
    def planned_seeds(self) -> range:
        """The seeds to run unless the command line says otherwise."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def file(self) -> str:
        """Path of its file below recipes/, such as 'small/alfa.yaml' for small_alfa."""
        stem = self.name.removeprefix(self.family).removeprefix('_')
        return f'{self.family}/{stem or "standard"}.yaml'


# Short names of the networks, and their names in timm.
NETWORKS = {
    'resnet20s': 'resnet20s',
    'resnet56s': 'resnet56s',
    'resnet18': 'resnet18_cifar',
    'resnet50': 'resnet50_cifar',
    'resnet101': 'resnet101_cifar',
}
# The networks for which the paper has more than one row.
STUDIED = ('resnet20s', 'resnet56s', 'resnet18')
# The step sizes of table 2, which all other recipes of that network use, times 255.
STEP = {'resnet20s': '0.5', 'resnet56s': '1.5', 'resnet18': '1.0', 'resnet50': '1.5', 'resnet101': '1.0'}
# ALFA on other blocks than the last, as stage numbers. The paper does not list the combinations of figures 2 and 3.
BLOCKS = {
    'resnet20s': ('1', '2', '2,3', '1,2,3'),
    'resnet56s': ('1', '2', '2,3', '1,2,3'),
    'resnet18': ('1', '2', '3', '3,4', '2,3,4', '1,2,3,4'),
}
STEPS = ('0.5', '1.0', '1.5', '2.0')
GAMMAS = (0.1, 0.2, 0.5, 1.0, 2.0, 10.0)
# Channels of resnet20s.
WIDTHS = {'quarter': [4, 8, 16], 'half': [8, 16, 32], 'once': [16, 32, 64], 'double': [32, 64, 128]}
# Factors of four, because a few seeds cannot separate steps that are closer.
WIDTH_STEPS = ('0.5', '2', '8')
REGULARIZERS = {
    'smoothing': dict(smoothing=0.1),
    'mixup': dict(mixup=0.2),
    'ema': dict(model_ema=True, model_ema_decay=0.99),
}


def dashed(blocks: str) -> str:
    """A block spec as part of a recipe's name."""
    return blocks.replace(',', '-')


def _cifar10(network: str, suffix: str, options: Options, robust: bool = False) -> Recipe:
    options = dict(model=NETWORKS[network], **options, **p.CIFAR10, **p.PAPER_CIFAR)
    return Recipe(f'cifar10_{network}{suffix}', options, robust=robust)


def _cifar10_steps() -> Iterator[Recipe]:
    """Standard training, and ALFA on the last block with several step sizes."""
    for network, best in STEP.items():
        attacked = network == 'resnet18'
        yield _cifar10(network, '', STANDARD, robust=attacked)

        steps = STEPS if network in STUDIED else (best,)
        if network == 'resnet18':
            steps = (*STEPS, '4.0')
        for step in steps:
            yield _cifar10(network, f'_alfa_step{step}', alfa(step), robust=attacked and step == best)


def _cifar10_blocks() -> Iterator[Recipe]:
    for network, specs in BLOCKS.items():
        for blocks in specs:
            yield _cifar10(network, f'_alfa_block{dashed(blocks)}', alfa(STEP[network], blocks=blocks))


def _cifar10_methods() -> Iterator[Recipe]:
    """Baselines and L-ALFA; on ResNet-18 also the number of steps, attacks on pixels, and the dimension of eta."""
    for network in STUDIED:
        yield _cifar10(network, '_double', DOUBLED)
        yield _cifar10(network, '_noise', NOISE)
        yield _cifar10(network, '_moex', MOEX)
        yield _cifar10(network, '_l_alfa', l_alfa())

    for steps in (1, 3, 7, 10):
        yield _cifar10('resnet18', f'_alfa_k{steps}', alfa(STEP['resnet18'], steps))
    yield _cifar10('resnet18', '_advprop', ADVPROP)
    yield _cifar10('resnet18', '_adv_train', ADV_TRAIN, robust=True)
    yield _cifar10('resnet18', '_l_alfa_dim4', l_alfa('all'))
    yield _cifar10('resnet18', '_l_alfa_dim20', l_alfa('convs'))


def _cifar100() -> Iterator[Recipe]:
    def recipe(network: str, suffix: str, options: Options) -> Recipe:
        return Recipe(f'cifar100_{network}{suffix}', dict(model=network, **p.CIFAR100, **p.PAPER_CIFAR, **options))

    for network in ('resnet20s', 'resnet56s'):
        yield recipe(network, '', STANDARD)
        yield recipe(network, '_alfa_step0.5', alfa('0.5'))
    for gamma in GAMMAS:
        yield recipe('resnet56s', f'_l_alfa_gamma{gamma:g}', l_alfa(gamma=gamma))


def _imagenet(network: str, suffix: str, options: Options) -> Recipe:
    shared = dict(model=network, **p.IMAGENET, **p.PAPER_IMAGENET)
    if network == 'efficientnet_b0':
        shared.update(batch_size=256, lr=0.1)
    else:
        shared.update(model_kwargs=dict(zero_init_last=False))  # as in torchvision
    return Recipe(f'imagenet_{network}{suffix}', {**shared, **options}, seeds=1)


def _imagenet_all() -> Iterator[Recipe]:
    for network in ('resnet18', 'resnet50', 'resnet101', 'resnet152', 'efficientnet_b0'):
        yield _imagenet(network, '', STANDARD)
        yield _imagenet(network, '_alfa_k1', alfa('0.5', 1))
    for steps in (3, 5):
        yield _imagenet('resnet18', f'_alfa_k{steps}', alfa('0.5', steps))
    yield _imagenet('resnet50', '_l_alfa', l_alfa())
    yield _imagenet('efficientnet_b0', '_advprop', ADVPROP)


def _small(suffix: str, options: Options, seeds: int = 1) -> Recipe:
    """ResNet-20s on 5,000 images, a protocol for two CPU cores."""
    options = {'model': 'resnet20s', **p.CIFAR10, **p.SMALL, **options}
    return Recipe(f'small{suffix}', options, 'small', seeds, 'bf16')


def _small_methods() -> Iterator[Recipe]:
    yield _small('', STANDARD, 6)
    yield _small('_alfa', alfa('0.5'), 6)
    yield _small('_double', DOUBLED, 6)
    yield _small('_alfa_mean', alfa('0.5', alfa_reduction='mean'))
    yield _small('_noise', NOISE, 3)
    yield _small('_moex', MOEX, 3)
    yield _small('_l_alfa', l_alfa(alfa_mode='joint'), 2)
    yield _small('_alfa_tail', alfa('0.5', alfa_grad='tail'))
    yield _small('_alfa_preact', alfa('0.5', blocks='layer3.2.bn2'))
    for step in WIDTH_STEPS[1:]:
        yield _small(f'_alfa_step{step}', alfa(step), 3)
    yield _small('_advprop', ADVPROP)


def _small_blocks() -> Iterator[Recipe]:
    for blocks in BLOCKS['resnet20s']:
        yield _small(f'_alfa_block{dashed(blocks)}', alfa('0.5', blocks=blocks), 3)
    yield _small('_triple', dict(STANDARD, standard_weight=3.0), 3)
    yield _small('_quadruple', dict(STANDARD, standard_weight=4.0), 3)


def _small_regularisers() -> Iterator[Recipe]:
    for name, options in REGULARIZERS.items():
        yield _small(f'_{name}', {**STANDARD, **options}, 3)
        yield _small(f'_double_{name}', {**DOUBLED, **options}, 3)
        yield _small(f'_alfa_{name}', {**alfa('0.5'), **options}, 3)


def _small_widths() -> Iterator[Recipe]:
    for width in ('quarter', 'half', 'double'):
        options = dict(model_kwargs=dict(channels=WIDTHS[width]))
        yield _small(f'_{width}_width_double', {**DOUBLED, **options}, 3)
        for step in WIDTH_STEPS:
            yield _small(f'_{width}_width_alfa_step{step}', {**alfa(step), **options}, 3)


def _gradient() -> Iterator[Recipe]:
    """The planned comparison of results/plan.md, apart from the exploratory runs with the same options.

    Training is deterministic: lower seeds would repeat runs whose scores were known when the plan was written.
    """
    methods = {
        '': STANDARD,
        '_double': DOUBLED,
        '_double_rate': DOUBLED_RATE,
        '_alfa': alfa('0.5'),
        '_alfa_mean': alfa('0.5', alfa_reduction='mean'),
    }
    for name, method in methods.items():
        yield replace(_small(f'_gradient{name}', method, seeds=10), first_seed=10)


def _rivals() -> Iterator[Recipe]:
    """What people would use instead, as planned in results/plan.md: beside the rows and seeds of `_gradient`."""
    methods = {'sam': SAM, 'sam_every10': SAM_RARELY, 'isda': ISDA, 'moex': MOEX}
    methods.update({name: {**STANDARD, **options} for name, options in REGULARIZERS.items()})
    for name, method in methods.items():
        yield replace(_small(f'_rivals_{name}', method, seeds=10), first_seed=10)


def _weights() -> Iterator[Recipe]:
    """Weights to ship with the package: all of CIFAR-10 or CIFAR-100, on one CPU core."""

    def recipe(name: str, data: Options, method: Options) -> Recipe:
        network = name.partition('_')[0]
        return Recipe(f'weights_{name}', {'model': network, **data, **p.SHORT, **method}, 'weights', 1, 'bf16')

    # a learned search on nine blocks in every step would take four times as long
    learned = {**l_alfa(alfa_mode='joint', alfa_every=4), 'alfa_steps': 1}
    yield recipe('resnet20s', p.CIFAR10, STANDARD)
    yield recipe('resnet20s_alfa', p.CIFAR10, alfa('0.5'))
    yield recipe('resnet20s_l_alfa', p.CIFAR10, learned)
    yield recipe('resnet56s', p.CIFAR10, STANDARD)
    yield recipe('resnet56s_alfa', p.CIFAR10, alfa('0.5'))
    yield recipe('resnet20s_cifar100', p.CIFAR100, STANDARD)
    yield recipe('resnet20s_cifar100_alfa', p.CIFAR100, alfa('0.5'))


def _cost() -> Iterator[Recipe]:
    """The cost of a step against K, on the last stage and on the first."""
    shared = dict(model='resnet20s', **p.CIFAR10, **p.COST)
    yield Recipe('cost', {**shared, **STANDARD}, 'cost', seeds=1)
    yield Recipe('cost_advprop', {**shared, **ADVPROP}, 'cost', seeds=1)
    for blocks in ('last', '1'):
        for steps in (1, 3, 5, 7, 10):
            method = alfa('0.5', steps, blocks)
            yield Recipe(f'cost_alfa_{blocks}_k{steps}', {**shared, **method}, 'cost', seeds=1)


def _smoke() -> Iterator[Recipe]:
    shared = dict(model='resnet20s', model_kwargs=dict(channels=[4, 8, 8]), **p.SMOKE)
    yield Recipe('smoke', {**shared, **STANDARD}, 'smoke', seeds=2)
    yield Recipe('smoke_alfa', {**shared, **alfa('0.5', 1)}, 'smoke', seeds=2)


_SOURCES = (
    _cifar10_steps,
    _cifar10_blocks,
    _cifar10_methods,
    _cifar100,
    _imagenet_all,
    _small_methods,
    _small_blocks,
    _small_regularisers,
    _small_widths,
    _gradient,
    _rivals,
    _weights,
    _cost,
    _smoke,
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for source in _SOURCES for recipe in source()}
