"""The calibrated person: track, style, mouth sources and appearance."""
