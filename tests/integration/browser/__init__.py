"""Real pages in a real browser: that the smoke tests notice defects, and that the guide is right."""
