"""What tells people and machines that a frame is synthetic: the visible label and the watermark."""
