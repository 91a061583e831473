"""Benchmarks: measurements of this version on this machine, and their report."""
