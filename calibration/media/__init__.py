"""Decoding of footage, photos and audio."""
