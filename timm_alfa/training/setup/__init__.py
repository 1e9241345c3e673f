"""What happens before the first update: launch, build, shard, describe."""
