"""Many calculations at once: executors over local processes or a cluster."""
