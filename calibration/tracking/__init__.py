"""The face in every frame, and which frames are rejected."""
