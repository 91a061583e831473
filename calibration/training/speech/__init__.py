"""Labelled speech for training: synthesis, recordings, augmentation."""
