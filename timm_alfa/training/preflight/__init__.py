"""What is tried before a run writes anything: one step, sharded updates, and --dry-run."""
