"""The command line, without engines: a fake `pulumi` and a Docker engine in memory."""
