"""Runs of train.py inside the test's own process, on little of the embedded digits."""

import csv

TINY = (
    '--model',
    'test_resnet',
    '--img-size',
    '32',
    '--train-subset',
    '96',
    '-b',
    '16',
    '--epochs',
    '2',
    '--workers',
    '0',
    '-vb',
    '120',
)
TIMES = ('images_per_second', 'seconds', 'eval_seconds')


class Runs:
    """Runs in one output folder."""

    def __init__(self, output):
        self.output = output

    def prepare(self, *argv, experiment='run'):
        from timm_alfa.training.options.train_args import parse_args
        from timm_alfa.training.setup.prepare import prepare

        config = parse_args([*TINY, '--output', str(self.output), '--experiment', experiment, *argv])
        return prepare(config)

    def __call__(self, *argv, experiment='run'):
        from timm_alfa.training.train import train

        return train(self.prepare(*argv, experiment=experiment))

    def weights(self, experiment, name='model_last.safetensors'):
        from safetensors.torch import load_file

        return load_file(self.output / experiment / name)

    def rows(self, experiment):
        """summary.csv without times."""
        with open(self.output / experiment / 'summary.csv') as file:
            return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
