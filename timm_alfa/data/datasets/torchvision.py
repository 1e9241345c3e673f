"""torchvision's data sets by timm's names, `torch/NAME`."""

from PIL import Image
from timm.data import create_dataset

from timm_alfa.data.config import DataConfig
from timm_alfa.data.datasets.base import TRAIN_NAMES, Source
from timm_alfa.errors import DataError, first_line, one_of

# With a list of labels; timm gives torchvision's `test` half for any split that is not `train`.
TORCH_NAMES = ('cifar10', 'cifar100', 'mnist', 'kmnist', 'fashion_mnist', 'qmnist', 'imagenet', 'places365')


def splits(data: DataConfig) -> tuple[str, ...]:
    name = data.dataset.split('/', 1)[1].lower()
    if name not in TORCH_NAMES:
        raise DataError(one_of('data set torch/', name, TORCH_NAMES))
    if not data.data_dir:
        raise DataError(f'--dataset {data.dataset} needs --data-dir, the folder that holds it (or takes the download).')
    return ('train', 'val') if name in ('imagenet', 'places365') else ('train', 'test')


class TorchSource(Source):
    """A split of a torchvision data set."""

    def __init__(self, data: DataConfig, split: str):
        try:
            self.dataset = create_dataset(
                data.dataset,
                root=data.data_dir,
                split='train' if split in TRAIN_NAMES else split,
                download=data.dataset_download,
            )
        except (AssertionError, RuntimeError, OSError, ValueError) as error:
            hint = '' if data.dataset_download else ' Add --dataset-download to fetch it.'
            raise DataError(
                f"cannot load '{data.dataset}' from '{data.data_dir}': {first_line(error)}.{hint}"
            ) from error
        targets = self.dataset.targets
        if getattr(targets, 'ndim', 1) == 2:  # QMNIST's: the class, then where the digit comes from
            targets = targets[:, 0]
        super().__init__(split, targets, map(str, getattr(self.dataset, 'classes', ())))

    def open(self, index: int) -> Image.Image:
        return self.dataset[index][0]
