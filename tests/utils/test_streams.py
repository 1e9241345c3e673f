"""Output of commands whose readers leave, or whose terminals know ASCII alone."""

import io
import os
import sys

import pytest

from timm_alfa.utils.streams import TolerantStream, protect_streams


@pytest.fixture
def pipe():
    """The reading end of a pipe, and a text stream at its other end."""
    reader, writer = os.pipe()
    with open(writer, 'w') as stream:
        yield reader, stream


def test_a_reader_that_leaves_is_not_missed(pipe):
    reader, stream = pipe
    tolerant = TolerantStream(stream)
    tolerant.write('before\n')
    tolerant.flush()
    assert os.read(reader, 100) == b'before\n'
    os.close(reader)
    for _ in range(3):
        tolerant.write('x' * 100_000)
        tolerant.flush()
    os.write(stream.fileno(), b'what C code writes')


def test_other_errors_are_raised():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, 'No space left on device')

    with pytest.raises(OSError, match='No space'):
        TolerantStream(Full()).write('x')


def test_ascii_and_closed_streams(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(raw, encoding='ascii'))
    monkeypatch.setattr(sys, 'stderr', None)
    protect_streams()
    once = sys.stdout
    protect_streams()
    assert sys.stdout is once
    print('caf\u00e9', flush=True)
    print('nowhere', file=sys.stderr, flush=True)
    assert raw.getvalue() == b'caf\\xe9\n'
