"""Training of the universal models that ship."""
