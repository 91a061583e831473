"""What is learned of one person."""
