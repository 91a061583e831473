"""Models of one person: speaking style, similarity, appearance; their evaluation."""
