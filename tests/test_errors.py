"""What the helpers for messages make of errors and names."""

import pytest

from timm_alfa.errors import AlfaError, AlfaWarning, ConfigError, first_line, nearest, warn


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


def test_a_message_holds_no_control_characters():
    for error in (AlfaError('\x1b[2Jname\u202e'), ConfigError(['\x1b[2J', 'two\r'])):
        assert str(error).replace('\n', '').isprintable()
    assert str(ConfigError(['a', 'b'])) == 'a\nb'
    with pytest.warns(AlfaWarning) as caught:
        warn('\x1b]0;title\x07')
    assert str(caught[0].message) == r'\x1b]0;title\x07'
