"""`accelerate launch -m timm_alfa.predict`: `timm-alfa predict` for launchers, which start modules and scripts."""

from timm_alfa.commands.predict import main
from timm_alfa.training.exit import run_main

if __name__ == '__main__':
    run_main(main)
