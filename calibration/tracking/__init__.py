"""Face tracking, and rejection of frames."""
