"""Where networks run: one protocol, several runtimes."""
