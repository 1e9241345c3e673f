"""`accelerate launch -m timm_alfa.validate`: `timm-alfa validate` for launchers, which start modules and scripts."""

from timm_alfa.commands.validate import main
from timm_alfa.training.exit import run_main

if __name__ == '__main__':
    run_main(main)
