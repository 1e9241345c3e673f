"""What the helpers for messages make of errors and names."""

import pytest

from timm_alfa.errors import first_line, nearest


@pytest.mark.parametrize(
    ('error', 'text'), [(OSError('a.\nb'), 'a'), (KeyError(), 'KeyError'), (ValueError(' \n'), 'ValueError')]
)
def test_first_line_has_no_period_and_is_never_empty(error, text):
    assert first_line(error) == text


def test_nearest_lists_few_names_and_says_where_many_are():
    assert nearest('model', 'b', ['a', 'c'], 'there') == "unknown model 'b'. Known: a, c."
    known = [f'net{size}' for size in range(13)]
    assert nearest('model', 'net99', known, 'See there') == (
        "unknown model 'net99'. Did you mean 'net9' or 'net8' or 'net7'? See there."
    )
