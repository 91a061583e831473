"""Weights that ship, each with the command and seed that made it."""
