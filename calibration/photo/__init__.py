"""A target from one photo."""
