"""Images by their paths."""

import os
import pickle

import pytest
from helpers.pictures import picture

from timm_alfa.data.datasets.image_paths import Unlabeled, find_images
from timm_alfa.errors import DataError


def test_a_folder_is_searched_at_any_depth_and_in_natural_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ('in/10.png', 'in/9.png', 'in/deep/er/1.PNG', 'in/.hidden/2.png', 'named'):
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        picture(0).save(path, 'PNG')
    (tmp_path / 'in' / 'notes.txt').write_text('x')
    found = list(find_images(['named', 'in', 'in/9.png']))
    assert found == ['named', 'in/9.png', 'in/10.png', 'in/deep/er/1.PNG', 'in/9.png']

    source = pickle.loads(pickle.dumps(Unlabeled(found)))
    assert [source.image(index, 'RGB').size for index in range(len(source))] == [(8, 8)] * 5


def test_places_without_images_are_refused(tmp_path):
    for place, part in ((tmp_path, 'has no images'), (tmp_path / 'no', 'there is no image or folder')):
        with pytest.raises(DataError, match=part):
            list(find_images([str(place)]))


def test_a_broken_image_is_named_without_options_of_other_commands(tmp_path):
    path = tmp_path / 'x.png'
    path.write_bytes(b'')
    with pytest.raises(DataError, match=r"^cannot read image '.*x\.png': it is empty\. Fix or remove it\.$"):
        Unlabeled([str(path)]).image(0, 'RGB')
