"""Mouth sources and jumps of the footage."""
