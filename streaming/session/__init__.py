"""One live conversation: clock, sound in, sound out, frames."""
