"""What runs a network: one small protocol, several libraries behind it."""
