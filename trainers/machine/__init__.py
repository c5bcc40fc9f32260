"""What a run computes on: precision, processes, sharded weights."""
