"""Dynamic resources: what Pulumi's Docker provider has no resource for."""
