"""The command line around the Pulumi program."""
