"""From footage to a target, and from data to weights."""
