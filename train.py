#!/usr/bin/env python3
"""Trains any timm model with ALFA, L-ALFA or a baseline: `accelerate launch train.py --help`."""

from timm_alfa.commands.train import main
from timm_alfa.training.exit import run_main

if __name__ == '__main__':
    run_main(main)
