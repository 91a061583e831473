"""Calibration: a target from footage or a photo."""
