"""Signals that ask a run to stop."""

import os
import signal

import pytest

from timm_alfa.training.stop import StopFlag


def test_signals_set_a_flag_and_a_second_interrupt_stops():
    with StopFlag() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        os.kill(os.getpid(), signal.SIGINT)  # handed on by a launcher: the same wish
        stop.at -= 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
