"""The paper's tables and figures, and ours: which recipes, the paper's numbers, and what is compared with what."""
from dataclasses import dataclass
from typing import Iterator, Mapping, Optional

from studies.rows import BLOCKS, GAMMAS, REGULARISERS, STEP, STEPS, WIDTH_STEPS, WIDTHS, dashed

CLEAR = 0.15  # points; the paper's own spreads are 0.06 to 0.33


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        recipe: Its name in `rows.RECIPES`.
        label: As printed.
        paper: The paper's number, in the table's metric.
        spread: Its standard deviation, where the paper gives one.
        seconds: The paper's seconds an epoch.
        against: Recipes that this one is compared with, in place of the table's first row.
        claim: 1 or -1: better or worse is expected than what it is compared with; 0: nothing is; None: as the paper's
            numbers say, where they differ by `CLEAR` or more.
    """
    recipe: str
    label: str
    paper: Optional[float] = None
    spread: Optional[float] = None
    seconds: Optional[float] = None
    against: Optional[tuple[str, ...]] = None
    claim: Optional[int] = None


@dataclass(frozen=True)
class Contrast:
    """A question that several rows answer together, by a weighted sum of theirs, seed by seed.

    Args:
        label: As printed.
        weights: Factors, by recipe.
    """
    label: str
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """Rows that are compared; the first one is the standard row.

    Args:
        metric: Key of a run's record; percent, more is better.
        note: A sentence for the report.
        protocol: 'paper', 'small' (5,000 images, ours) or 'other'; verdicts are counted for each by itself.
        bars: Whether the report draws it as bars.
        compared: Whether differences are tested at all.
        timed: Whether seconds are compared: those of runs that had the same hardware, as much of it.
        contrasts: What rows say together.
    """
    name: str
    title: str
    rows: tuple[Row, ...]
    metric: str = 'test_top1'
    note: str = ''
    protocol: str = 'paper'
    bars: bool = False
    compared: bool = True
    timed: bool = False
    contrasts: tuple[Contrast, ...] = ()

    @property
    def loss(self) -> str:
        """Key of the loss that belongs to the metric."""
        return self.metric.replace('top1', 'loss')

    @property
    def validation(self) -> str:
        """Key of the same accuracy on the validation split, where there is one."""
        return self.metric.replace('test', 'val') if 'test' in self.metric else ''

    def against(self, row: Row) -> tuple[str, ...]:
        """Recipes a row is compared with."""
        first = self.rows[0].recipe
        return row.against if row.against is not None else () if row.recipe == first else (first,)

    def claim(self, row: Row, other: str) -> Optional[int]:
        """What is claimed of a row against another one: 1 better, -1 worse, None nothing."""
        if row.claim is not None:
            return row.claim or None
        gain = self.paper_gain(row, other)
        return None if gain is None or abs(gain) < CLEAR else 1 if gain > 0 else -1

    def paper_gain(self, row: Row, other: str) -> Optional[float]:
        """The paper's difference."""
        paper = next((r.paper for r in self.rows if r.recipe == other), None)
        return None if row.paper is None or paper is None else round(row.paper - paper, 4)


def _alfa(network: str, step: str, paper: Optional[float] = None, data: str = 'cifar10', **more) -> Row:
    return Row(f'{data}_{network}_alfa_step{step}', f'ALFA {step}/255', paper, **more)


def _steps(name: str, title: str, network: str, numbers: tuple[float, ...], steps: tuple[str, ...] = STEPS) -> Table:
    rows = (_alfa(network, step, paper) for step, paper in zip(steps, numbers[1:], strict=True))
    return Table(name, title, (Row(f'cifar10_{network}', 'standard', numbers[0]), *rows))


def _pair(title: str, data: str, network: str, standard: float, paper: float, suffix: str, name: str) -> Table:
    return Table(name, f'{title}, {network}', (
        Row(f'{data}_{network}', 'standard', standard), Row(f'{data}_{network}_{suffix}', 'ALFA', paper)))


def _paper_main() -> Iterator[Table]:
    title = 'Table 1: step size on the last block, CIFAR-10'
    yield _steps('table1_resnet20s', f'{title}, resnet20s', 'resnet20s', (91.25, 92.52, 92.47, 92.34, 91.36))
    yield _steps('table1_resnet56s', f'{title}, resnet56s', 'resnet56s', (93.03, 94.38, 94.47, 94.72, 93.45))
    for network, standard, paper in (('resnet20s', 91.25, 92.52), ('resnet56s', 93.03, 94.72),
                                     ('resnet18', 94.30, 94.65), ('resnet50', 94.73, 95.24),
                                     ('resnet101', 95.17, 95.38)):
        yield _pair('Table 2: CIFAR-10', 'cifar10', network, standard, paper, f'alfa_step{STEP[network]}',
                    f'table2_{network}')
    for network, standard, paper in (('resnet20s', 66.92, 67.79), ('resnet56s', 71.22, 72.36)):
        yield _pair('Table 3: CIFAR-100', 'cifar100', network, standard, paper, 'alfa_step0.5',
                    f'table3_cifar100_{network}')
    for network, standard, paper in (('resnet18', 69.38, 70.19), ('resnet50', 75.21, 76.23),
                                     ('resnet101', 77.10, 78.04), ('resnet152', 78.31, 78.65)):
        yield _pair('Table 3: ImageNet', 'imagenet', network, standard, paper, 'alfa_k1', f'table3_imagenet_{network}')
    yield _steps('table4', 'Table 4: step size, CIFAR-10, resnet18', 'resnet18',
                 (94.30, 93.15, 94.65, 94.34, 94.36, 93.30), (*STEPS, '4.0'))
    yield Table('table5_cifar10', 'Table 5: steps K, CIFAR-10, resnet18', (
        Row('cifar10_resnet18', 'standard', 94.30), Row('cifar10_resnet18_alfa_k1', 'K=1', 94.46),
        Row('cifar10_resnet18_alfa_k3', 'K=3', 94.43), Row('cifar10_resnet18_alfa_step1.0', 'K=5', 94.65),
        Row('cifar10_resnet18_alfa_k7', 'K=7', 94.39), Row('cifar10_resnet18_alfa_k10', 'K=10', 94.17)))
    yield Table('table5_imagenet', 'Table 5: steps K, ImageNet, resnet18', (
        Row('imagenet_resnet18', 'standard', 69.38), Row('imagenet_resnet18_alfa_k1', 'K=1', 70.19),
        Row('imagenet_resnet18_alfa_k3', 'K=3', 68.65), Row('imagenet_resnet18_alfa_k5', 'K=5', 67.42)))


def _paper_methods() -> Iterator[Table]:
    swapped = 'The printed table swaps the times of AdvProp and ALFA; here they are as the text has them.'
    yield Table('table6_cifar10', 'Table 6: accuracy and time, CIFAR-10, resnet18', (
        Row('cifar10_resnet18', 'standard', 94.30, seconds=23),
        Row('cifar10_resnet18_advprop', 'AdvProp', 94.52, seconds=123),
        Row('cifar10_resnet18_alfa_step1.0', 'ALFA', 94.65, seconds=28,
            against=('cifar10_resnet18', 'cifar10_resnet18_advprop'))), note=swapped, timed=True)
    yield Table('table6_imagenet', 'Table 6: accuracy and time, ImageNet, efficientnet_b0', (
        Row('imagenet_efficientnet_b0', 'standard', 77.00, seconds=2628),
        Row('imagenet_efficientnet_b0_advprop', 'AdvProp', 77.50, seconds=13352),
        Row('imagenet_efficientnet_b0_alfa_k1', 'ALFA', 77.60, seconds=3140,
            against=('imagenet_efficientnet_b0', 'imagenet_efficientnet_b0_advprop'))), note=swapped, timed=True)
    yield _methods('resnet56s', 93.03, dict(noise=(93.17, 0.09), moex=(92.90, 0.33)), (94.72, 0.06))
    yield _methods('resnet18', 94.30, dict(noise=(94.34, 0.10), moex=(94.16, 0.23), advprop=(94.52, 0.28)),
                   (94.65, 0.08))
    yield _methods('resnet20s', None, dict(noise=(None, None), moex=(None, None)), (None, None))


def _methods(network: str, standard: Optional[float], others: dict, alfa: tuple) -> Table:
    base = f'cifar10_{network}'
    labels = dict(noise='Gaussian noise', moex='MoEx', advprop='AdvProp')
    printed = 'Table 7' if standard is not None else 'As table 7 (no row of the paper)'
    return Table(f'table7_{network}', f'{printed}: methods, CIFAR-10, {network}', (
        Row(base, 'standard', standard), Row(f'{base}_double', 'standard, loss doubled'),
        *(Row(f'{base}_{name}', labels[name], *numbers, claim=1 if name == 'advprop' else 0)
          for name, numbers in others.items()),
        _alfa(network, STEP[network], alfa[0], spread=alfa[1], claim=1,
              against=(base, f'{base}_double', *(f'{base}_{name}' for name in others))),
        *([Row(f'{base}_l_alfa', 'L-ALFA', claim=1)] if standard is None or network == 'resnet56s' else ())),
        note='The paper has no row with the loss doubled: it shows what a gradient of twice the size does by itself.')


def _paper_learned() -> Iterator[Table]:
    yield Table('table8_cifar10', 'Table 8: L-ALFA, CIFAR-10, resnet18', (
        Row('cifar10_resnet18', 'standard', 94.30), Row('cifar10_resnet18_l_alfa', 'L-ALFA', 94.62),
        Row('cifar10_resnet18_alfa_step1.0', 'ALFA', 94.65)))
    yield Table('table8_cifar100', 'Table 8: L-ALFA, CIFAR-100, resnet56s', (
        Row('cifar100_resnet56s', 'standard', 71.22), Row('cifar100_resnet56s_l_alfa_gamma1', 'L-ALFA', 72.40),
        Row('cifar100_resnet56s_alfa_step0.5', 'ALFA', 72.36)))
    yield Table('table8_imagenet', 'Table 8: L-ALFA, ImageNet, resnet50', (
        Row('imagenet_resnet50', 'standard', 75.21), Row('imagenet_resnet50_l_alfa', 'L-ALFA', 76.12),
        Row('imagenet_resnet50_alfa_k1', 'ALFA', 76.23)))
    yield Table('table9', 'Table 9: dimension of eta, CIFAR-10, resnet18', (
        Row('cifar10_resnet18', 'standard', 94.30), Row('cifar10_resnet18_l_alfa_dim4', 'dim 4', 94.52),
        Row('cifar10_resnet18_l_alfa', 'dim 9', 94.62), Row('cifar10_resnet18_l_alfa_dim20', 'dim 20', 93.54)),
        note='As equation 5 reads, dim r is a sum of r + 1 losses, and its gradient about that much larger.')
    numbers = (70.68, 72.13, 72.35, 72.40, 72.38, 71.92)
    yield Table('table10', 'Table 10: gamma, CIFAR-100, resnet56s', (
        Row('cifar100_resnet56s', 'standard', 71.22),
        *(Row(f'cifar100_resnet56s_l_alfa_gamma{gamma:g}', f'gamma {gamma:g}', paper)
          for gamma, paper in zip(GAMMAS, numbers, strict=True))),
        note='The paper prints gamma 0.1 as a gain of 0.54; 70.68 lies 0.54 below its standard row, and its text says '
             'that too small a gamma may hurt.')


def _figures() -> Iterator[Table]:
    unread = ('The paper gives bars without numbers and without a list of combinations: signs are as its text has '
              'them. Here one step size serves all blocks; the paper tuned each.')
    for name, network, best in (('figure2', 'resnet20s', '3'), ('figure3_resnet18', 'resnet18', '4'),
                                ('figure3_resnet56s', 'resnet56s', '3')):
        base, step = f'cifar10_{network}', STEP[network]
        last = Row(f'{base}_alfa_step{step}', f'block {best}', claim=1,
                   against=(base, *(f'{base}_alfa_block{dashed(b)}' for b in BLOCKS[network])))
        whole = {b: b.count(',') + 1 == int(best) for b in BLOCKS[network]}
        others = (Row(f'{base}_alfa_block{dashed(b)}', f'block {b}', claim=-1 if whole[b] else None) for b in whole)
        yield Table(name, f'Figure {name[6]}: where to perturb, CIFAR-10, {network}',
                    (Row(base, 'standard'), *sorted((*others, last), key=lambda r: (len(r.label), r.label))),
                    note=unread, bars=True)
    yield Table('figure4', 'Figure 4: eta over epochs', (
        Row('cifar10_resnet18_l_alfa', 'L-ALFA, CIFAR-10, resnet18'),
        Row('imagenet_resnet50_l_alfa', 'L-ALFA, ImageNet, resnet50')), compared=False)
    yield Table('robust', 'Accuracy under attack (PGD-20, 2/255, eps 8/255), CIFAR-10, resnet18', (
        Row('cifar10_resnet18', 'standard', 0.00), Row('cifar10_resnet18_alfa_step1.0', 'ALFA', 4.86),
        Row('cifar10_resnet18_adv_train', 'adversarial training', 50.72)), metric='robust_top1')


def _small() -> Iterator[Table]:
    title, both = 'Small data', ('small', 'small_double')
    beside = dict(zip(REGULARISERS, ('label smoothing 0.1', 'mixup 0.2', 'averaged weights (0.99)'), strict=True))
    standard, doubled = Row('small', 'standard'), Row('small_double', 'standard, loss doubled')
    yield Table('small', f'{title}: methods, resnet20s on 5,000 images of CIFAR-10', (
        standard, doubled,
        Row('small_alfa', 'ALFA 0.5/255', against=(*both, 'small_noise', 'small_moex'), claim=1),
        Row('small_alfa_mean', "ALFA, reduction 'mean'", claim=1),
        Row('small_noise', 'Gaussian noise', against=both), Row('small_moex', 'MoEx'),
        Row('small_l_alfa', 'L-ALFA, joint', against=both, claim=1),
        Row('small_alfa_tail', "ALFA, grad 'tail'", claim=1),
        Row('small_alfa_preact', 'ALFA, before the last ReLU', against=both, claim=1),
        Row('small_alfa_step2', 'ALFA 2/255', against=both), Row('small_advprop', 'AdvProp', against=both)),
        note='The sum of two losses doubles the gradient: a gain counts against the doubled standard row too. '
             "'mean' keeps the gradient's size, and 'tail' adds to the last layer's only, so that their yardstick is "
             "the standard row alone (of 'tail' this was seen after its first run).", protocol='small',
        contrasts=(
            Contrast('moving the features, at the same size of the gradient', {
                'small_alfa': 0.5, 'small_double': -0.5, 'small_alfa_mean': 0.5, 'small': -0.5}),
            Contrast('doubling the gradient, with features moved or not', {
                'small_double': 0.5, 'small': -0.5, 'small_alfa': 0.5, 'small_alfa_mean': -0.5}),
            Contrast('ALFA before the last ReLU less ALFA after it', {'small_alfa_preact': 1.0, 'small_alfa': -1.0})))
    yield Table('small_blocks', f'{title}: where to perturb (as figure 2)', (
        standard, doubled, Row('small_triple', 'standard, loss tripled'),
        Row('small_quadruple', 'standard, loss fourfold'),
        *(Row(f'small_alfa_block{dashed(blocks)}', f'block {blocks}', against=('small', f'small_{yardstick}'))
          for blocks, yardstick in zip(BLOCKS['resnet20s'], ('double', 'double', 'triple', 'quadruple'), strict=True)),
        Row('small_alfa', 'block 3', claim=1,
            against=(*both, *(f'small_alfa_block{dashed(blocks)}' for blocks in BLOCKS['resnet20s'])))),
        note='Each block adds a loss: two of them triple the gradient, three make it fourfold.',
        protocol='small', bars=True)
    yield Table('small_regularisers', f'{title}: beside label smoothing, mixup, a moving average of the weights', (
        standard, doubled, Row('small_alfa', 'ALFA', against=both, claim=1),
        *(row for name, label in beside.items() for row in (
            Row(f'small_{name}', f'standard + {label}'),
            Row(f'small_double_{name}', f'loss doubled + {label}', against=(f'small_{name}',)),
            Row(f'small_alfa_{name}', f'ALFA + {label}', against=(f'small_{name}', f'small_double_{name}'), claim=1)))),
        protocol='small', contrasts=tuple(
            Contrast(f"{method}'s gain with {label} less that without", {
                f'{recipe}_{name}': 1.0, f'small_{name}': -1.0, recipe: -1.0, 'small': 1.0})
            for method, recipe in (('ALFA', 'small_alfa'), ('the doubled loss', 'small_double'))
            for name, label in beside.items()))
    for width in WIDTHS:
        yield _width(width)


def _width(width: str) -> Table:
    base = 'small' if width == 'once' else f'small_{width}_width'
    names = {'0.5': 'small_alfa'} if width == 'once' else {}
    return Table(f'small_width_{width}', f'Small data: step size, width {width}', (
        Row(f'{base}_double', 'standard, loss doubled'),
        *(Row(names.get(step, f'{base}_alfa_step{step}'), f'ALFA {step}/255') for step in WIDTH_STEPS)),
        note='ALFA with a step of zero is standard training with its loss doubled.', protocol='small')


def _other() -> Iterator[Table]:
    yield Table('weights', 'Weights that ship: resnet20s, CIFAR-10, 30 epochs of a cosine', (
        Row('weights_resnet20s', 'standard'), Row('weights_resnet20s_alfa', 'ALFA 0.5/255'),
        Row('weights_resnet20s_l_alfa', 'L-ALFA, joint, K=1, every 4th step')), protocol='other', compared=False,
        note='A run each, so that there is something to load: nothing is decided by them.')
    yield Table('cost', 'Cost against steps, resnet20s', (
        Row('cost', 'standard'), Row('cost_advprop', 'AdvProp, K=5'),
        *(Row(f'cost_alfa_{blocks}_k{k}', f'ALFA, block {blocks}, K={k}')
          for blocks in ('last', '1') for k in (1, 3, 5, 7, 10))), protocol='other', compared=False, timed=True,
        note='Three short epochs each, one run at a time (`--jobs 1`): only the seconds count.')
    yield Table('smoke', 'Smoke: the machinery on the embedded digits', (
        Row('smoke', 'standard'), Row('smoke_alfa', 'ALFA')), protocol='other',
        note='One epoch: it shows that the parts fit, nothing else.')


TABLES: dict[str, Table] = {
    table.name: table
    for source in (_paper_main, _paper_methods, _paper_learned, _figures, _small, _other) for table in source()}


def tables_of(recipe: str) -> list[tuple[Table, Row]]:
    """Where a recipe stands."""
    return [(table, row) for table in TABLES.values() for row in table.rows if row.recipe == recipe]
