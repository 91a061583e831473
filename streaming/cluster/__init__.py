"""Many machines: calls and batches on Ray, and targets from URLs."""
