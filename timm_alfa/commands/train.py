"""train: train any timm model with ALFA, L-ALFA or a baseline."""

from typing import Optional, Sequence

from timm_alfa.training.exit import before_work


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse, prepare, train, print the record."""
    from timm_alfa.training.options.train_args import parse_args
    from timm_alfa.utils.console import setup_logging

    setup_logging()
    with before_work():
        config = parse_args(argv)

    # torch and timm are first imported here, so that wrong options are reported at once
    from timm_alfa.training.preflight.dry_run import dry_run
    from timm_alfa.training.preflight.probe_run import probe_run
    from timm_alfa.training.run_dir.check import check_folder
    from timm_alfa.training.setup.prepare import prepare
    from timm_alfa.training.start import check_start
    from timm_alfa.training.train import print_record, train

    with before_work():
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
