"""The searches over the footage."""
