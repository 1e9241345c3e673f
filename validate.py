#!/usr/bin/env python3
"""Evaluates a checkpoint on a split: `accelerate launch validate.py --help`."""

from timm_alfa.training.exit import before_work, run_main


def main() -> None:
    """Parse, prepare, evaluate, report."""
    from timm_alfa.training.options.validate_args import parse_args
    from timm_alfa.training.validate import prepare, report, validate
    from timm_alfa.utils.console import setup_logging

    setup_logging()
    with before_work():
        config = parse_args()
        prepared = prepare(config)
    report(prepared.accelerator, validate(config, prepared))


if __name__ == '__main__':
    run_main(main)
