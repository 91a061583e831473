"""The hot loops, each with a readable NumPy twin."""
