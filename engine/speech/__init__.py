"""Sound to expression."""
