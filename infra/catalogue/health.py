"""The health checks of the services: the command inside the container, and its times."""

from infra.catalogue import container_paths as paths
from infra.catalogue import ports
from infra.catalogue.service import HealthCheck

# How long a real Dify may take: 43 s on a fresh database with two cores, more on a slow disk.
DIFY_START_SECONDS = 180
# Longer than the limit inside the script.
CELERY_CHECK_SECONDS = 12
# The first certificate takes seconds; a CA may be slow.
CERTIFICATE_SECONDS = 240
# The official image of LiteLLM has no curl.
LITELLM_ALIVE = (
    "import urllib.request as u; "
    f"u.urlopen('http://127.0.0.1:{ports.LITELLM}/health/liveliness', timeout=4).read()"
)
_REDIS_PING = (
    f'REDISCLI_AUTH="$(cat {paths.REDIS_PASSWORD_FILE})" redis-cli -p {ports.REDIS} ping | grep -q PONG'
)
_QDRANT_READY = (
    f"exec 3<>/dev/tcp/127.0.0.1/{ports.QDRANT}; "
    r"printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3; grep -q '200 OK' <&3"
)


def answers_http(port: int, path: str) -> HealthCheck:
    """Return a check that `path` answers with success on the container's own `port`; its image has curl."""
    url = f"http://127.0.0.1:{port}{path}"
    return HealthCheck(command=("curl", "-fsS", "-o", "/dev/null", "--max-time", "4", url))


def accepts_connections(port: int) -> HealthCheck:
    """Return a check that the container's own `port` accepts connections; its image has Python."""
    script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 4).close()"
    return HealthCheck(command=("python3", "-c", script))


def celery(role: str) -> HealthCheck:
    """Return the check of a Celery `worker` or `beat`: its script needs only the image's Python."""
    return HealthCheck(
        command=("python3", "-I", "-S", paths.CELERY_HEALTH_SCRIPT, role),
        timeout=CELERY_CHECK_SECONDS,
        start_period=DIFY_START_SECONDS,
    )


# /health answers 200 without a database; /console/api/setup needs the database.
API = HealthCheck(
    command=(
        *("curl", "-fsS", "--fail-early", "--max-time", "4"),
        *(
            part
            for path in ("/health", "/console/api/setup")
            for part in ("-o", "/dev/null", f"http://127.0.0.1:{ports.API}{path}")
        ),
    ),
    start_period=DIFY_START_SECONDS,
)
WEB = HealthCheck(command=("sh", "-c", f"wget -q -O /dev/null -T 4 http://$(hostname):{ports.WEB}/signin"))
# By TCP: the server of the first initialisation listens on its socket alone.
POSTGRES = HealthCheck(command=("pg_isready", "-q", "-h", "127.0.0.1", "-U", "postgres", "-d", "dify"))
REDIS = HealthCheck(command=("sh", "-c", _REDIS_PING))
WEAVIATE = HealthCheck(
    command=("wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{ports.WEAVIATE}/v1/.well-known/ready")
)
QDRANT = HealthCheck(command=("bash", "-c", _QDRANT_READY))
SQUID = HealthCheck(command=("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{ports.SQUID}"))
STREAM_PROXY = answers_http(ports.EDGE_STATUS, "/healthz")
LITELLM = HealthCheck(command=("python3", "-c", LITELLM_ALIVE), start_period=120)
# The last line that it prints is the reason when there is no certificate.
CERTBOT = HealthCheck(
    command=("python3", paths.CERTIFICATES_SCRIPT, "check"),
    interval=30,
    timeout=10,
    start_period=CERTIFICATE_SECONDS,
)
