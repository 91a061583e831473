"""What runs per chunk of audio."""
