"""Sound cards, windows and virtual cameras."""
