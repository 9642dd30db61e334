module dify-kit/tests/cluster/pause

go 1.24.0
