"""Runs a runner over fake_train.py, to be killed by tests: drive.py OUTPUT SLOTS SECONDS."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from studies import worker
from studies.jobs import make_jobs
from studies.runner import Runner


def fake_command(seconds: float, failing: str = ''):
    def command(job, output, root=None):
        words = [sys.executable, str(HERE / 'fake_train.py'), str(output), job.folder, str(seconds)]
        return words + (['fail'] if job.name == failing else [])

    return command


if __name__ == '__main__':
    workspace = worker.Workspace(Path(sys.argv[1]), Path(sys.argv[1]) / 'runs', slots=int(sys.argv[2]))
    worker.train_command = fake_command(float(sys.argv[3]))
    sys.exit(Runner(make_jobs(['smoke']), workspace).run())
