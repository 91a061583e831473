"""A real-time streaming lip-sync engine."""
