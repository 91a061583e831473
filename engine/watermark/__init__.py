"""An imperceptible mark in the luma of every frame, that says: synthetic, and of which session."""
