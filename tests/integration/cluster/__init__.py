"""Tests on a Kubernetes cluster: `make test-cluster` starts one for all of them."""
