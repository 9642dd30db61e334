"""Running Pulumi: its command line, its events, its processes, its state."""
