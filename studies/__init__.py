"""The paper's tables and figures, run again: `run.py` makes the runs, `report.py` says what they show."""
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
