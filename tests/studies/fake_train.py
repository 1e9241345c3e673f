"""A stand-in for train.py that leaves a mark, waits, and writes the files of a run.

Usage: fake_train.py OUTPUT NAME SECONDS [fail]. As with train.py, SIGTERM leads to exit status 0 and no result.
"""

import json
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    output, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (output / 'marks').open('a') as file:
        file.write(f'begin {name}\n')
    time.sleep(seconds)
    if sys.argv[4:] == ['fail']:
        print('error: no luck', file=sys.stderr)
        return 3
    run = output / name
    run.mkdir(exist_ok=True)
    (run / 'summary.csv').write_text('epoch,train_loss,val_top1,seconds,eta_0,eta_1\n1,2.3456789,10,1.5,0.5,0.5\n')
    (run / 'result.json').write_text(
        json.dumps(
            dict(
                status='finished',
                val_top1=50.0,
                test_top1=49.0,
                epochs=1,
                seconds=2.0,
                seconds_per_epoch=1.5,
                best_epoch=1,
                mixed_precision='no',
                device='cpu',
                run=str(run),
                command=['train.py', str(run)],
                dataset=f'hfds/{run}',
                versions=dict(torch='2', timm='1'),
                commit='abc',
            )
        )
    )
    with (output / 'marks').open('a') as file:
        file.write(f'end {name}\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
