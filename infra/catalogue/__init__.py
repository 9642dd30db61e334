"""The facts: Dify releases, route groups, services, ports, special addresses, presets."""
