"""Many files by one command: jobs, workers, retries, and a journal to resume by."""
