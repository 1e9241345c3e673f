"""The server that tests fork processes from: it has imported once what each of them would import anew."""

import multiprocessing

# there is one server for all files that a worker of pytest runs
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(
    [
        'sklearn.datasets',
        'timm.data',
        'timm.optim',
        'timm.scheduler',
        'torch.distributed.fsdp',
        'timm_alfa.commands.train',
        'timm_alfa.probing.probe',
        'timm_alfa.training.setup.prepare',
        'timm_alfa.training.train',
        'timm_alfa.training.validate',
    ]
)


def run_ranks(worker, args, count):
    """Runs a function in so many processes, as `torch.multiprocessing.spawn` does: `worker(rank, *args)`.

    Raises:
        ProcessRaisedException: A process raised an error.
    """
    import torch.multiprocessing as mp

    mp.start_processes(worker, args, nprocs=count, start_method='forkserver')
