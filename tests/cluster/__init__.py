"""A Kubernetes cluster for tests: two nodes as containers of this machine's Docker engine.

`make cluster` starts one (`python -m tests.cluster up`), `make cluster-down` removes it. Its programs are built from Go
modules once (`programs.py`), its images by Docker (`images.py`). `plan.py` names everything of a cluster; `pki.py`,
`components.py` and `objects.py` make its certificates, configuration files and Kubernetes objects; `lifecycle.py` runs
it.
"""
