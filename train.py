#!/usr/bin/env python3
"""Trains any timm model with ALFA, L-ALFA or a baseline: `accelerate launch train.py --help`."""

from timm_alfa.training.exit import before_work, run_main


def main() -> None:
    """Parse, prepare, train, print the record."""
    from timm_alfa.training.options.train_args import parse_args
    from timm_alfa.training.preflight.dry_run import dry_run
    from timm_alfa.training.preflight.probe_run import probe_run
    from timm_alfa.training.run_dir.check import check_folder
    from timm_alfa.training.setup.prepare import prepare
    from timm_alfa.training.start import check_start
    from timm_alfa.training.train import print_record, train
    from timm_alfa.utils.console import setup_logging

    setup_logging()
    with before_work():
        config = parse_args()
        check_folder(config)
        run = prepare(config)
        if config.run.dry_run or config.run.probe:
            folder = check_start(run)
    if config.run.dry_run:
        dry_run(run, folder)
        return
    if config.run.probe:
        probe_run(run, folder)
        return
    print_record(run, train(run))


if __name__ == '__main__':
    run_main(main)
