"""How a service description becomes something that runs on an engine."""
