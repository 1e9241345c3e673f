"""validate: evaluate a checkpoint on a split."""

from typing import Optional, Sequence

from timm_alfa.training.exit import before_work


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse, prepare, evaluate, report."""
    from timm_alfa.training.options.validate_args import parse_args
    from timm_alfa.utils.console import setup_logging

    setup_logging()
    with before_work():
        config = parse_args(argv)

    # torch and timm are first imported here, so that wrong options are reported at once
    from timm_alfa.training.validate import prepare, report, validate

    with before_work():
        prepared = prepare(config)
    report(prepared.accelerator, validate(config, prepared))
