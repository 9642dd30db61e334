"""Tests with the newest packages of the network: `make newest`. What they find is no fault of a commit."""
