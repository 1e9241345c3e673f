"""Signals that ask a run to stop."""

import os
import signal

import pytest

from timm_alfa.training.stop import StopFlag
from timm_alfa.utils.signals import STOP_SIGNALS


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


@pytest.mark.parametrize('number', [signal.SIGHUP, signal.SIGUSR1])
def test_a_closed_terminal_and_the_warning_of_slurm_stop(number):
    assert number in STOP_SIGNALS
    with StopFlag() as stop:
        os.kill(os.getpid(), number)
        assert stop
    assert signal.getsignal(number) == signal.SIG_DFL


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_without_a_terminal_to_write_to_stops(monkeypatch):
    def write(descriptor, text):
        raise OSError(5, 'Input/output error')

    with StopFlag() as stop:
        monkeypatch.setattr(os, 'write', write)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop
