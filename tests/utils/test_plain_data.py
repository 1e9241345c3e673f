"""YAML and JSON as plain data: what is read and written again is the same, what is more than data is refused."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from timm_alfa.utils import plain_data
from timm_alfa.utils.plain_data import PlainDataError, dump_yaml, parse_json, parse_yaml, read_json

ROOT = Path(__file__).parents[2]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.text('a \r\n\t\x85\u2028\u2029\ufeff#:\'"', max_size=5)
    | st.sampled_from(['1e3', '-1.5E-3', '.1e1', '1_0e2', '2024-01-01', '<<', '=', 'no', '0x1f', '1:30', '~', ''])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@given(values)
def test_what_is_written_is_read_as_the_same(value):
    assert parse_yaml(dump_yaml(value)) == value


@pytest.mark.parametrize('path', sorted((ROOT / 'recipes').rglob('*.yaml')), ids=lambda path: path.stem)
def test_recipes_are_what_any_reader_of_yaml_sees(path):
    text = path.read_text()
    assert parse_yaml(text) == yaml.safe_load(text)


@given(st.text('[]{}:,-?*&!|>\'"#%@` \nab1.e<=~', max_size=30))
def test_any_text_is_plain_data_or_our_error(text):
    try:
        value = parse_yaml(text)
    except PlainDataError as error:
        assert str(error)
    else:
        json.dumps(value)


@pytest.mark.parametrize(
    ('text', 'part'),
    [
        ('[' * 100_000, 'too deeply'),
        ('[' * 101 + ']' * 101, 'too deeply'),
        ('{"a": ', 'not valid JSON'),
        ('9' * 5000, 'not valid JSON'),
    ],
)
def test_json_that_cannot_be_read(text, part, tmp_path):
    file = tmp_path / 'file.json'
    file.write_text(text)
    with pytest.raises(PlainDataError, match=part):
        read_json(file)


def test_json_of_the_largest_depth_is_read():
    assert parse_json('[' * 100 + ']' * 100)
    assert parse_json('{"a": ' * 99 + '[1]' + '}' * 99)


def test_a_file_of_the_largest_size_is_read_and_a_larger_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_data, 'MAX_JSON_BYTES', 2048)
    file = tmp_path / 'file.json'
    file.write_text(json.dumps('x' * 2046))
    assert len(read_json(file)) == 2046
    file.write_text(json.dumps('x' * 2047))
    with pytest.raises(PlainDataError, match='larger than 2 KiB'):
        read_json(file)
