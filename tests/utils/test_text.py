"""Text that others wrote, on one line."""

import pytest

from timm_alfa.utils.text import printable


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('resnet20s', 'resnet20s'),
        ('Größe 数字 😀', 'Größe 数字 😀'),
        ('a\x1b[31mb', r'a\x1b[31mb'),
        ('a\nb\r\tc', r'a\nb\r\tc'),
        ('a\x85b\u2028c\u2029d', r'a\x85b\u2028c\u2029d'),
        ('a\u202etxt', r'a\u202etxt'),
        ('\x00\x7f\x9b', r'\x00\x7f\x9b'),
        ('\ud800', r'\ud800'),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    printable(text).encode('utf-8')
