"""Labelled speech: synthesis, recordings, damage."""
