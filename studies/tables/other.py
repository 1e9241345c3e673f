"""Tables beyond the two protocols: weights that ship, the cost of a step, and a smoke test."""

from typing import Iterator

from studies.tables.types import Row, Table


def tables() -> Iterator[Table]:
    """In the order of the report."""
    yield _weights()
    yield _cost()
    yield _smoke()


def _weights() -> Table:
    rows = (
        Row('weights_resnet20s', 'resnet20s, CIFAR-10: standard'),
        Row('weights_resnet20s_alfa', 'resnet20s, CIFAR-10: ALFA 0.5/255'),
        Row('weights_resnet20s_l_alfa', 'resnet20s, CIFAR-10: L-ALFA, joint, K=1, every 4th step'),
        Row('weights_resnet56s', 'resnet56s, CIFAR-10: standard'),
        Row('weights_resnet56s_alfa', 'resnet56s, CIFAR-10: ALFA 0.5/255'),
        Row('weights_resnet20s_cifar100', 'resnet20s, CIFAR-100: standard'),
        Row('weights_resnet20s_cifar100_alfa', 'resnet20s, CIFAR-100: ALFA 0.5/255'),
    )
    return Table(
        'weights',
        'Weights to ship with the package: 30 epochs with a cosine schedule',
        rows,
        note='One run each, to have weights to load. They are not evidence for any method.',
        protocol='other',
        compared=False,
    )


def _cost() -> Table:
    rows = [Row('cost', 'standard'), Row('cost_advprop', 'AdvProp, K=5')]
    for blocks in ('last', '1'):
        for steps in (1, 3, 5, 7, 10):
            rows.append(Row(f'cost_alfa_{blocks}_k{steps}', f'ALFA, block {blocks}, K={steps}'))
    return Table(
        'cost',
        'Cost against steps, resnet20s',
        tuple(rows),
        note='Three short epochs each, one run at a time (`--jobs 1`): only the seconds matter.',
        protocol='other',
        compared=False,
        timed=True,
    )


def _smoke() -> Table:
    rows = (Row('smoke', 'standard'), Row('smoke_alfa', 'ALFA'))
    return Table(
        'smoke',
        'Smoke test on the embedded digits',
        rows,
        note='One epoch: it shows that the parts work together, and nothing else.',
        protocol='other',
    )
