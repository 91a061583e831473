"""The report of the measurements."""
