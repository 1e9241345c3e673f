"""Text that others wrote, on one line."""

import pytest

from timm_alfa.utils.text import duration, parse_interval, printable, short_number, shorten_list


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


def test_intervals_durations_and_counts():
    assert parse_interval('10m').seconds == 600 and parse_interval('500').updates == 500
    for text in ('0', '0m', 'x', '-3', '1h', ''):
        with pytest.raises(ValueError):
            parse_interval(text)
    assert (duration(7.25), duration(185), duration(7385)) == ('7.2 s', '3:05', '2:03:05')
    assert (short_number(812), short_number(27345), short_number(2.5e7)) == ('812', '27.3k', '25M')


def test_shorten_list():
    assert shorten_list('abc', 3) == 'a, b, c'
    assert shorten_list('abcde', 3) == 'a, b, c and 2 more'
