"""torchvision's datasets by timm's names, `torch/NAME`."""

from typing import TYPE_CHECKING

from PIL import Image
from timm.data import create_dataset

from timm_alfa.data.datasets.base import Source
from timm_alfa.data.datasets.image_files import read_image
from timm_alfa.data.datasets.names import TORCH_NAMES
from timm_alfa.errors import DataError, first_line, one_of

if TYPE_CHECKING:
    from timm_alfa.data.config import DataConfig


def splits(data: 'DataConfig') -> tuple[str, ...]:
    """Returns the names of the splits, without reading the data.

    Raises:
        DataError: There is no such dataset, or --data-dir is missing.
    """
    name = data.dataset.split('/', 1)[1].lower()
    if name not in TORCH_NAMES:
        raise DataError(one_of('dataset torch/', name, TORCH_NAMES))
    if not data.data_dir:
        raise DataError(f'--dataset {data.dataset} needs --data-dir, the folder that holds it or is to hold it.')
    return ('train', 'val') if name in ('imagenet', 'places365') else ('train', 'test')


class TorchSource(Source):
    """A split of a torchvision dataset."""

    def __init__(self, data: 'DataConfig', split: str):
        try:
            self.dataset = create_dataset(
                data.dataset,
                root=data.data_dir,
                split=split,
                download=data.dataset_download,
            )
        except (AssertionError, RuntimeError, OSError, ValueError) as error:
            hint = '' if data.dataset_download else ' Add --dataset-download to download it.'
            raise DataError(
                f"cannot load '{data.dataset}' from '{data.data_dir}': {first_line(error)}.{hint}"
            ) from error
        if hasattr(self.dataset, 'loader'):  # reads its images from files
            self.dataset.loader = read_image
        targets = self.dataset.targets
        if getattr(targets, 'ndim', 1) == 2:  # QMNIST's rows: the class, then where the digit comes from
            targets = targets[:, 0]
        super().__init__(split, targets, map(str, getattr(self.dataset, 'classes', ())))

    def open(self, index: int) -> Image.Image:
        return self.dataset[index][0]
