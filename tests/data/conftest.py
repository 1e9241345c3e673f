import pytest
from helpers.pictures import picture

MODEL = dict(input_size=(3, 8, 8), mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3), interpolation='bicubic', crop_pct=1.0)


@pytest.fixture
def model_config():
    return dict(MODEL)


@pytest.fixture
def make_folder(tmp_path):
    """Writes an image folder: splits by name, and for each the number of images of each class."""

    def make(name='images', size=(8, 8), **splits):
        seed = 0
        for split, classes in splits.items():
            for label, count in classes.items():
                folder = tmp_path / name / split / label
                folder.mkdir(parents=True)
                for at in range(count):
                    picture(seed, size).save(folder / f'{at}.png')
                    seed += 1
        return tmp_path / name

    return make


@pytest.fixture
def make_parquet(tmp_path, datasets_library):
    """Writes a dataset in the Hub's layout: columns of rows by split."""
    datasets = datasets_library

    def make(features, name='set', **splits):
        for split, rows in splits.items():
            target = tmp_path / name / 'data' / f'{split}-00000-of-00001.parquet'
            target.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(str(target))
        return tmp_path / name

    return make
