"""The options of each method, which `--help` reads without importing torch."""
