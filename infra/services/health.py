"""Health commands that several services share."""

from infra.services.spec import HealthCheck


def answers_http(port: int, path: str) -> HealthCheck:
    """Return a check that `path` answers with success on the container's own `port`; its image has curl."""
    url = f"http://127.0.0.1:{port}{path}"
    return HealthCheck(command=("curl", "-fsS", "-o", "/dev/null", "--max-time", "4", url))
