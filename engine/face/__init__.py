"""The face model, its meshes and the retargeting of a wanted expression."""
