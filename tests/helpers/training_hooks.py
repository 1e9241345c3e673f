"""Faults planted in a process before it trains."""

import os


def slow():
    """Every update takes a while, so that signals find the loop at work."""
    import time

    from timm_alfa.training.trainer import Trainer

    original = Trainer.update

    def update(self, window):
        time.sleep(0.05)
        return original(self, window)

    Trainer.update = update


def rank_one_fails():
    """The second process meets an image it cannot read, in its third batch."""
    from timm_alfa.errors import DataError
    from timm_alfa.training.trainer import Trainer

    original = Trainer.batches

    def batches(self, loader):
        for at, batch in enumerate(original(self, loader)):
            if at == 2 and os.environ.get('RANK') == '1':
                raise DataError("cannot read 'x/broken.png': truncated.")
            yield batch

    Trainer.batches = batches


def rank_one_dies():
    """The second process is killed in its third batch."""
    import signal

    from timm_alfa.training.trainer import Trainer

    original = Trainer.batches

    def batches(self, loader):
        for at, batch in enumerate(original(self, loader)):
            if at == 2 and os.environ.get('RANK') == '1':
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    Trainer.batches = batches


def rank_one_nan():
    """The second process alone sees images that are not finite, once."""
    from timm_alfa.training.trainer import Trainer

    original = Trainer.batches

    def batches(self, loader):
        for at, batch in enumerate(original(self, loader)):
            if at == 1 and os.environ.get('RANK') == '1' and self.state.epoch == 0:
                batch = batch._replace(input=batch.input * float('nan'))
            yield batch

    Trainer.batches = batches


def rank_one_overflows():
    """The running statistics of the second process alone overflow, in its third update."""
    from timm_alfa.replay.norms import running_buffers
    from timm_alfa.training.update.step import TrainStep

    original = TrainStep.apply_gradients

    def apply_gradients(self, update):
        original(self, update)
        if os.environ.get('RANK') == '1' and update == 2:
            running_buffers(self.run.task)[0].fill_(float('inf'))

    TrainStep.apply_gradients = apply_gradients


def never_done():
    """An update that takes for ever."""
    import time

    from timm_alfa.training.trainer import Trainer

    Trainer.update = lambda self, window: time.sleep(600)


def worker_dies():
    """The process that reads images is killed after the first update."""
    import signal

    from timm_alfa.training.trainer import Trainer

    original = Trainer.after_update

    def after_update(self, flags):
        import multiprocessing

        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
        original(self, flags)

    Trainer.after_update = after_update


def fsdp_on_cpus():
    """accelerate leaves FSDP out on CPUs: this does there what AcceleratorState does elsewhere, and no more."""
    from accelerate import DistributedType
    from accelerate.state import AcceleratorState, PartialState

    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state['distributed_type'] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            if self._mixed_precision != 'no':
                fsdp_plugin.set_mixed_precision(self._mixed_precision)

    AcceleratorState.__init__ = init


def says_sharded():
    """Writes to stderr whether all parameters of the optimizer lie in pieces, once."""
    import sys

    from timm_alfa.training.trainer import Trainer

    original = Trainer.turns

    def turns(self):
        params = [param for group in self.run.optimizer.param_groups for param in group['params']]
        sys.stderr.write(f'sharded: {all(hasattr(param, "placements") for param in params)}\n')
        yield from original(self)

    Trainer.turns = turns


def stops_after_two():
    """The process gets SIGTERM in its second update."""
    import signal

    from timm_alfa.training.trainer import Trainer

    original, count = Trainer.update, []

    def update(self, window):
        count.append(1)
        if len(count) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, window)

    Trainer.update = update


def rank_one_is_stopped_in_validation():
    """The second process alone gets SIGTERM, when the first epoch is evaluated."""
    import signal

    from timm_alfa.training.trainer import Trainer

    original = Trainer.row

    def row(self):
        if os.environ.get('RANK') == '1' and self.state.epoch == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    Trainer.row = row
