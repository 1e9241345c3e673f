"""Runs of train.py in separate processes, forked from a server that has imported everything."""

import atexit
import io
import json
import os
import signal
import socket
import sys
import time
from contextlib import redirect_stdout

from helpers.forkserver import CONTEXT
from helpers.training_runs import TINY


def _child(script, argv, environment, errors, out, hooks):
    """One process: what train.py or validate.py does, with its streams in files."""
    import importlib

    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    sys.path.insert(0, os.getcwd())
    sys.argv = [f'{script}.py', *argv]
    for name in hooks:
        getattr(importlib.import_module('helpers.training_hooks'), name)()
    module = importlib.import_module(script)
    from timm_alfa.training import finish
    from timm_alfa.training.exit import run_main

    finish.draw_plots = lambda *args, **kwargs: None  # as in other tests

    def main():
        text = io.StringIO()
        with redirect_stdout(text):
            module.main()
        out.put(text.getvalue())

    run_main(main)


class Processes:
    """One launch, of one or several processes.

    Args:
        hooks: Names in `helpers.training_hooks`, planted before the script begins.
        variables: More of the environment.
    """

    def __init__(self, tmp_path, argv, count=1, script='train', hooks=(), variables=None):
        self.errors, self.out = tmp_path / f'stderr-{time.monotonic_ns()}', CONTEXT.Queue()
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        self.children = []
        for rank in range(count):
            environment = {'ACCELERATE_USE_CPU': 'true', **(variables or {})}
            if count > 1:
                environment.update(
                    RANK=str(rank),
                    LOCAL_RANK=str(rank),
                    WORLD_SIZE=str(count),
                    MASTER_ADDR='127.0.0.1',
                    MASTER_PORT=str(port),
                )
            child = CONTEXT.Process(
                target=_child, args=(script, list(argv), environment, str(self.errors), self.out, hooks)
            )
            child.start()
            self.children.append(child)
            atexit.register(child.kill)

    def signal(self, number):
        for child in self.children:
            os.kill(child.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, seconds=120):
        """Exit codes, once all have ended."""
        for child in self.children:
            child.join(seconds)
            if child.is_alive():
                for each in self.children:
                    each.kill()
                raise TimeoutError(f'still running: {self.stderr}')
        return [child.exitcode for child in self.children]

    @property
    def stderr(self):
        return self.errors.read_text() if self.errors.exists() else ''

    def record(self, seconds=120):
        """The record on the last line of stdout, of a launch that went well."""
        lines, deadline = [], time.monotonic() + seconds
        while not lines and time.monotonic() < deadline:
            text = self.out.get(timeout=seconds)
            lines = text.strip().splitlines()
        assert self.wait(seconds) == [0] * len(self.children), self.stderr
        return json.loads(lines[-1])


class ShardedProcesses(Processes):
    """A launch whose accelerate config says FSDP2 with these options, as `accelerate launch` hands them on."""

    def __init__(self, tmp_path, argv, count=2, hooks=(), options=None, variables=None):
        values = {'VERSION': '2', 'CPU_RAM_EFFICIENT_LOADING': 'true', **(options or {})}
        variables = {
            'ACCELERATE_USE_FSDP': 'true',
            **{f'FSDP_{name}': value for name, value in values.items()},
            **(variables or {}),
        }
        super().__init__(tmp_path, argv, count, hooks=['fsdp_on_cpus', *hooks], variables=variables)


def train_args(output, experiment, *argv):
    return [*TINY, '--output', str(output), '--experiment', experiment, *argv]
