"""Options of searches: what their values may be, and the attack of an evaluation. Nothing here imports torch."""

from dataclasses import dataclass, fields
from typing import Any, Callable

from timm_alfa.options import option

NORMS = ('linf', 'l2')
PROJECTIONS = ('hyperplane', 'simplex')
UNITS = ('absolute', 'rms')


def size_errors(flag_name: Callable[[str], str], **sizes: float):
    """Yields an error for each size above 1, which must have been meant for pixels of 0 to 255."""
    for name, size in sizes.items():
        if size > 1:
            yield f'{flag_name(name)} is {size:g}: pixels lie in [0, 1]; use a fraction such as {size:g}/255.'


@dataclass(frozen=True)
class Attack:
    """A PGD attack; sizes are in pixels of [0, 1].

    Attributes:
        steps: Number of steps.
        step_size: Size of a step.
        eps: Largest change of a pixel.
        restarts: Attacks on each image.
        random_start: Start each attack at random within eps.
    """

    steps: int = 20
    step_size: float = 2 / 255
    eps: float = 8 / 255
    restarts: int = 1
    random_start: bool = True


@dataclass(frozen=True)
class AttackConfig:
    """Options of the attack that robust accuracy is measured under."""

    attack_steps: int = option(Attack.steps, 'steps of PGD', low=1)
    attack_step_size: float = option(Attack.step_size, 'size of a step, in pixels of [0, 1]', above=0)
    attack_eps: float = option(Attack.eps, 'largest change of a pixel, in pixels of [0, 1]', above=0)
    attack_restarts: int = option(
        Attack.restarts, 'attacks on each image; it counts as correct if it withstands all', low=1
    )
    attack_random_start: bool = option(Attack.random_start, 'start each attack at random within the bound')

    def errors(self, flag_name: Callable[[str], str]):
        yield from size_errors(flag_name, attack_step_size=self.attack_step_size, attack_eps=self.attack_eps)
        if self.attack_restarts > 1 and not self.attack_random_start:
            yield (
                f'{flag_name("attack_restarts")} is {self.attack_restarts} without a random start: every attack would '
                f'be the same. Leave it at 1, or set {flag_name("attack_random_start")}.'
            )

    def options(self) -> dict[str, Any]:
        """The options by the names that `Attack` gives them."""
        return {field.name: getattr(self, f'attack_{field.name}') for field in fields(Attack)}
