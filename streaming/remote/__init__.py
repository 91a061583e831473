"""Targets that are given by a URL."""
