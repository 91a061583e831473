"""Sound and picture files."""
