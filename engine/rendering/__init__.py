"""The picture of a frame."""
