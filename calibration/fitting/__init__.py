"""Geometry, pose and expression from landmarks."""
