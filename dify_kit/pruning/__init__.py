"""What no stack of this machine needs any more: images of earlier releases, old archives of upgrades, old caches."""
