"""A process in which the real huggingface_hub client talks to a loopback server: it reads its address at import.

A line of JSON in, {'code', 'env'}; a line out, {'result'} or {'error', 'message', 'trace'}.
"""

import contextlib
import json
import os
import sys
import traceback
import warnings


def run(code: str, env: dict) -> dict:
    """Run code in a separate environment; what it calls `result` is the result."""
    before = dict(os.environ)
    for key, value in env.items():
        os.environ.pop(key, None) if value is None else os.environ.__setitem__(key, value)
    names: dict = {}
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            exec(code, names)
        return {'result': names.get('result')}
    except BaseException as error:
        return {'error': type(error).__name__, 'message': str(error), 'trace': traceback.format_exc()}
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == '__main__':
    import timm_alfa.zoo  # noqa: F401

    print('ready', flush=True)
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
