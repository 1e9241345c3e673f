"""predict: the most probable classes of images."""

from typing import Optional, Sequence

from timm_alfa.training.exit import before_work


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Parse, prepare, classify; the exit code is 1 if an image cannot be read."""
    from timm_alfa.training.options.predict_args import parse_args
    from timm_alfa.utils.console import setup_logging

    setup_logging()
    with before_work():
        config = parse_args(argv)

    # torch and timm are first imported here, so that wrong options are reported at once
    from timm_alfa.training.predict import predict, prepare

    with before_work():
        prepared = prepare(config)
    return int(predict(config, prepared) > 0)
