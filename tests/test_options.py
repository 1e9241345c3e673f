"""Values from flags and YAML as what the fields say, and errors that say what to type."""

from dataclasses import dataclass
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timm_alfa.errors import AlfaError, ConfigError, one_of
from timm_alfa.options import build, convert, option, parse_number, resolve


@dataclass(frozen=True)
class Config:
    rate: float = option(0.1, 'a rate', above=0, high=10)
    count: int = option(2, 'a count', low=0)
    on: bool = option(False, 'a switch')
    word: str = option('a', 'a word', choices=('a', 'b'))
    bound: Optional[float] = option(None, 'a bound', above=0)
    sizes: tuple[int, ...] = option((), 'sizes', low=1)
    extra: dict = option({}, 'whatever')

    def errors(self, flag_name):
        if self.on and self.word == 'b':
            yield f'{flag_name("on")} goes with {flag_name("word")} a.'


@pytest.mark.parametrize(
    ('values', 'want'),
    [
        (dict(rate='0.5/255'), 0.5 / 255),
        (dict(rate='3'), 3.0),
        (dict(rate=2), 2.0),
        (dict(count='7'), 7),
        (dict(count=3.0), 3),
        (dict(count='1e2'), 100),
        (dict(on='Yes'), True),
        (dict(on='0'), False),
        (dict(on=True), True),
        (dict(word='b'), 'b'),
        (dict(bound='none'), None),
        (dict(bound='1/4'), 0.25),
        (dict(bound=None), None),
        (dict(sizes='1,2 3'), (1, 2, 3)),
        (dict(sizes=[4, 5]), (4, 5)),
        (dict(sizes=6), (6,)),
        (dict(extra={'k': 1}), {'k': 1}),
        (
            dict(extra={'a': 'false', 'b': 'True', 'c': 'None', 'd': '1e-1', 'e': '3', 'f': '1/4', 'g': ['off', 'x']}),
            {'a': False, 'b': True, 'c': None, 'd': 0.1, 'e': 3, 'f': 0.25, 'g': [False, 'x']},
        ),
        (dict(extra={'a': 'none', 'b': '', 'c': '1/0', 'd': '1_0'}), {'a': 'none', 'b': '', 'c': '1/0', 'd': '1_0'}),
    ],
)
def test_readings(values, want):
    (name,) = values
    value = getattr(build(Config, values), name)
    assert value == want
    assert type(value) is type(want)


@pytest.mark.parametrize(
    'values',
    [
        dict(rate='x'),
        dict(rate=0),
        dict(rate=11),
        dict(rate='1/0'),
        dict(rate='1/2/3'),
        dict(rate='nan'),
        dict(rate='inf'),
        dict(rate=True),
        dict(rate=[1]),
        dict(rate={}),
        dict(rate=None),
        dict(rate='none'),
        dict(rate=''),
        dict(count=1.5),
        dict(count='inf'),
        dict(count='nan'),
        dict(count=-1),
        dict(count=True),
        dict(count='1/2'),
        dict(count=None),
        dict(on='maybe'),
        dict(on=2),
        dict(on=None),
        dict(word='c'),
        dict(word=None),
        dict(word={}),
        dict(word=True),
        dict(bound=0),
        dict(bound='-1'),
        dict(sizes='0'),
        dict(sizes='a'),
        dict(sizes=[1.5]),
        dict(extra=3),
        dict(unknown=1),
        dict(on=True, word='b'),
    ],
    ids=str,
)
def test_errors_are_one_line_and_name_the_option(values):
    with pytest.raises(ConfigError) as caught:
        build(Config, values, lambda name: '--' + name)
    assert len(caught.value.errors) == 1
    assert '\n' not in str(caught.value)
    assert '--' + next(iter(values)) in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AlfaError)


@given(
    st.dictionaries(
        st.sampled_from(['rate', 'count', 'on', 'word', 'bound', 'sizes', 'extra', 'wrong']),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=6),
            st.lists(st.integers(), max_size=3),
            st.dictionaries(st.text(), st.integers()),
        ),
    )
)
def test_nothing_but_config_errors(values):
    config, errors = resolve(Config, values)
    assert (config is None) <= bool(errors)
    assert all(error and '\n' not in error for error in errors if not any(isinstance(v, str) for v in values.values()))


def test_all_errors_at_once():
    config, errors = resolve(Config, dict(rate=-1, count='x', wrod='b'))
    assert config is None
    assert len(errors) == 3
    assert "Did you mean 'word'" in errors[2]


def test_defaults_are_not_shared():
    a, b = build(Config, {}), build(Config, {})
    a.extra['k'] = 1
    assert b.extra == {}


def test_unknown_names():
    assert one_of('task', 'zzz', ['a', 'b']) == "unknown task 'zzz'. Known: a, b."


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_fractions(above, below):
    assert parse_number(f'{above}/{below}') == above / below
    assert convert(f' {above} / {below} ', float) == above / below
