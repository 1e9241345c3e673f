"""Studies: the tables of the paper, and further ones, run with paired seeds (`run.py`) and reported (`report.py`)."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
