#!/usr/bin/env python3
"""Evaluates a checkpoint on a split: `accelerate launch validate.py --help`."""

from timm_alfa.commands.validate import main
from timm_alfa.training.exit import run_main

if __name__ == '__main__':
    run_main(main)
