import numpy as np
import pytest
from helpers.dataset_files import encoded
from helpers.pictures import picture
from PIL import Image

from timm_alfa.data.datasets.image_files import FORMATS, decode_image, image_extensions, readable_formats

LOSSY = ('JPEG', 'WEBP', 'AVIF', 'GIF')
OPTIONS = {'WEBP': dict(lossless=False), 'ICO': dict(sizes=[(16, 16)])}


def known(kind):
    return pytest.param(kind, marks=pytest.mark.skipif(kind not in readable_formats(), reason='not in this Pillow'))


@pytest.mark.parametrize('kind', [known(kind) for kind in FORMATS])
def test_every_format_is_read_and_a_cut_off_file_is_an_error(kind):
    image = picture(0, (16, 16))
    content = encoded(image, kind, **OPTIONS.get(kind, {}))
    read = decode_image(content).convert('RGB')
    assert read.size == (16, 16)
    assert kind in LOSSY or np.array_equal(read, image)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(Exception, match=r'\w'):  # whatever the decoder raises: sources name the image
            decode_image(content[: int(share * len(content))])


def test_formats_that_start_programs_are_not_read():
    assert not {'EPS', 'WMF', 'BUFR', 'GRIB', 'HDF5', 'MPEG'} & set(readable_formats())


def test_extensions_are_those_of_the_formats():
    assert {'.png', '.jpg', '.jpeg', '.webp', '.avif', '.jp2', '.tif', '.bmp', '.gif', '.ppm', '.mpo'} <= (
        image_extensions()
    )
    assert not {'.eps', '.ps', '.pdf', '.wmf', '.h5', '.txt', '.svg'} & image_extensions()


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG', 'TIFF'])
def test_of_an_animation_the_first_frame_is_read(kind):
    frames = [Image.new('RGB', (8, 8), (shade, shade, shade)) for shade in (0, 255)]
    options = dict(lossless=True) if kind == 'WEBP' else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode_image(content).convert('L').getextrema() == (0, 0)


@pytest.mark.parametrize('content', [b'', b'no image', b'%PDF-1.4', bytes(1000)])
def test_what_is_no_image_is_said(content):
    message = 'none of JPEG, PNG,' if content else 'it is empty'
    with pytest.raises(ValueError, match=message):
        decode_image(content)


def test_an_image_of_one_pixel():
    assert decode_image(encoded(picture(7, (1, 1)))).getpixel((0, 0)) == (7, 7, 7)
