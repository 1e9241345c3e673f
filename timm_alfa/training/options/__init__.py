"""Options of train.py: dataclasses, the parser made from them, and their checks."""
