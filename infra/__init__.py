"""The Pulumi program: settings, release catalogue, services, tiers and platforms."""
