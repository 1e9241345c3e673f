import io

import numpy as np
import pytest
from helpers.dataset_files import KINDS, encoded, open_train, read_all, write_dataset
from PIL import Image

from timm_alfa.data import create_eval_loader
from timm_alfa.data.datasets.image_files import decode_image
from timm_alfa.data.datasets.image_modes import convert_image
from timm_alfa.errors import DataError

RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
UPPER = (RAMP >> 8).astype(np.uint8)


def stored(image, kind, **options):
    """An image as it is read again."""
    return decode_image(encoded(image, kind, **options))


def tiff(values, bits, photometric=1, little=True):
    """A gray TIFF whose rows are given as bytes."""
    order = 'little' if little else 'big'
    height, width = values.shape
    data = values.astype('<u2' if little else '>u2').tobytes()
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        data = b''.join(int(left << 12 | right).to_bytes(3, 'big') for left, right in pairs)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(data)}
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273] = start
    entries = b''
    for tag, value in sorted(tags.items()):
        entries += tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(4, order)
    head = (b'II' if little else b'MM') + (42).to_bytes(2, order) + (8).to_bytes(4, order)
    return head + len(tags).to_bytes(2, order) + entries + bytes(4) + data


@pytest.fixture
def sixteen_bits(tmp_path, datasets_library):
    """Writes a dataset of one kind with two gray images of 16 bits."""
    return lambda kind: write_dataset(kind, tmp_path / 'data', [encoded(Image.fromarray(RAMP))] * 2)


@pytest.mark.parametrize('kind', KINDS)
def test_16_bits_become_8_in_every_kind_of_dataset(kind, sixteen_bits):
    data = sixteen_bits(kind)
    for mode, expected in (('RGB', UPPER[..., None].repeat(3, 2)), ('L', UPPER)):
        assert all(np.array_equal(image, expected) for image in read_all(data, mode))
    source = open_train(data)
    assert all(np.array_equal(image, UPPER) for image in source.images([1, 0], 'L'))
    assert source.size(0) == (1, 8, 8)


@pytest.mark.parametrize('loader', ['memory', 'timm'])
def test_16_bits_become_8_in_every_loader(loader, sixteen_bits):
    from dataclasses import replace

    data = replace(sixteen_bits('folder'), loader=loader)
    model = dict(input_size=(1, 8, 8), mean=(0.0,), std=(1.0,), crop_pct=1.0)
    ((input, _),) = create_eval_loader(data, model_config=model, split='train')
    assert np.array_equal((input[0, 0] * 255).round().numpy(), UPPER)


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'PPM', 'JPEG2000'])
def test_16_bits_are_read_alike_from_every_format(kind):
    assert np.array_equal(convert_image(stored(Image.fromarray(RAMP), kind), 'L'), UPPER)


@pytest.mark.parametrize('little', [True, False])
def test_both_orders_of_bytes(little):
    assert np.array_equal(convert_image(decode_image(tiff(RAMP, 16, little=little)), 'L'), UPPER)


def test_white_may_be_zero():
    assert np.array_equal(convert_image(decode_image(tiff(RAMP, 16, photometric=0)), 'L'), 255 - UPPER)


def test_12_bits_use_the_whole_range():
    assert np.array_equal(convert_image(decode_image(tiff(RAMP >> 4, 12)), 'L'), UPPER)


def test_gray_and_color_of_16_bits_agree():
    """Pillow itself reads color of 16 bits: the same values in both have to give the same picture."""
    header = b'P6 8 8 65535\n'
    color = decode_image(header + RAMP[..., None].repeat(3, 2).astype('>u2').tobytes())
    png = decode_image(_color_png(RAMP))
    assert abs(np.asarray(color).astype(int) - UPPER[..., None]).max() <= 1
    assert np.array_equal(np.asarray(png), convert_image(stored(Image.fromarray(RAMP), 'PNG'), 'RGB'))


def _color_png(values):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    height, width = values.shape
    rows = values[..., None].repeat(3, 2).astype('>u2')
    raw = b''.join(b'\0' + row.tobytes() for row in rows)
    header = struct.pack('>IIBBBBB', width, height, 16, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(raw)) + chunk(b'IEND', b'')


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(('mode', 'what'), [('F', 'floating-point numbers'), ('I', '32-bit integers')])
def test_pixels_without_a_known_range_are_refused_by_name(kind, mode, what, tmp_path, datasets_library):
    data = write_dataset(kind, tmp_path / 'data', [encoded(Image.new(mode, (4, 4), 1), 'TIFF')])
    with pytest.raises(DataError, match=rf'cannot read (image|row) .*{what}.* save it with 8 or 16 bits per channel'):
        read_all(data)
    with pytest.raises(DataError, match=what):
        open_train(data).size(0)


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'LA', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'HSV'])
@pytest.mark.parametrize('wanted', ['L', 'RGB'])
def test_other_modes_are_converted_as_timm_and_torchvision_do(mode, wanted):
    image = Image.effect_noise((8, 8), 60).convert('RGB').convert(mode if mode != 'PA' else 'P').convert(mode)
    assert convert_image(image, wanted).tobytes() == image.convert(wanted).tobytes()


def test_lab_is_read_in_gray_too():
    image = Image.new('LAB', (2, 2), (128, 128, 128))
    assert convert_image(image, 'L').tobytes() == image.convert('RGB').convert('L').tobytes()


def test_the_color_behind_transparent_pixels_stays():
    image = Image.new('RGBA', (2, 2), (200, 10, 30, 0))
    assert convert_image(stored(image, 'PNG'), 'RGB').getpixel((0, 0)) == (200, 10, 30)


def test_the_orientation_in_exif_is_not_applied():
    """As timm and torchvision."""
    exif = Image.Exif()
    exif[0x112] = 6
    file = io.BytesIO()
    Image.new('RGB', (6, 2)).save(file, 'JPEG', exif=exif)
    assert convert_image(decode_image(file.getvalue()), 'RGB').size == (6, 2)
