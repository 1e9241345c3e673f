"""Publish a run on the Hugging Face Hub: weights, config and a model card, in one commit.

python hub/publish.py RUN --repo-id me/resnet20s.alfa_c10
python hub/publish.py RUN --repo-id me/resnet20s.alfa_c10 --dry-run [--output DIR]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout needs no installation

from timm_alfa.commands.publish import main, parser
from timm_alfa.training.exit import run_main

__all__ = ['main', 'parser']

if __name__ == '__main__':
    run_main(main)
