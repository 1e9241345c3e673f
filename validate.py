#!/usr/bin/env python3
"""Scores a checkpoint on a split: `accelerate launch validate.py --help`."""

from timm_alfa.training.exit import before_work, run_main


def main() -> None:
    """Parse, build, score, record."""
    from timm_alfa.training.console import setup_logging
    from timm_alfa.training.validate import parse_args, report, run, validate

    setup_logging()
    with before_work():
        config = parse_args()
        accelerator, *opened = run(config)
    report(accelerator, validate(config, accelerator, *opened))


if __name__ == '__main__':
    run_main(main)
