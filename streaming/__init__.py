"""Sessions, devices, files and networks."""
