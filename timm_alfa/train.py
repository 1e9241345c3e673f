"""`accelerate launch -m timm_alfa.train`: `timm-alfa train` for launchers, which start modules and scripts."""

from timm_alfa.commands.train import main
from timm_alfa.training.exit import run_main

if __name__ == '__main__':
    run_main(main)
