"""The stand-in's real images judge the environment that the kit renders, and end with exit code 1 where Dify does."""

import socket
import time
from collections.abc import Iterator
from typing import Any

import docker
import httpx
import pytest

from infra.catalogue.images import stands_in
from infra.catalogue.releases import RELEASES
from infra.catalogue.services import SERVICES
from infra.services.environment import environment
from support.configuration import resolved, settings
from support.images import image_of
from tests.integration.small_dify import SmallDify

# Services that run a Dify image, by its role.
IMAGES = {name: service.image for name, service in SERVICES.items() if stands_in(service.image)}
NEWEST, *OLDER = RELEASES
# tests/unit/test_standin_environment.py has every service of every release.
STARTS = [(NEWEST, service) for service in IMAGES] + [(release, "api") for release in OLDER]
START_SECONDS, READ_SECONDS = 8.0, 2.0


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    client = docker.from_env(timeout=120)
    yield client
    client.close()


def rendered(release: str, service: str) -> dict[str, str]:
    """Return the environment that the kit renders for a service."""
    return resolved(environment(service, settings({"release": release}), RELEASES[release]))


def ended(engine: Any, service: str, variables: dict[str, str], *more: str) -> tuple[int, str]:
    """Start a service's image with these variables and no network; return its exit code and log."""
    role = IMAGES[service]
    image = image_of(role)
    command = [*engine.images.get(image).attrs["Config"]["Cmd"], *more]
    container = engine.containers.run(
        image, command=command, environment=variables, network_mode="none", detach=True
    )
    try:
        return int(container.wait(timeout=120)["StatusCode"]), container.logs().decode()
    finally:
        container.remove(force=True)


@pytest.mark.parametrize(("release", "service"), STARTS)
def test_image_takes_what_the_kit_renders(engine: Any, release: str, service: str) -> None:
    code, log = ended(engine, service, rendered(release, service), "--check")

    assert code == 0, log


INVALID = [
    # What the kit set until reality was asked.
    (
        "1.17.1",
        "api",
        "DEPLOYMENT_EDITION",
        "SELF_HOSTED",
        "Input should be 'COMMUNITY', 'ENTERPRISE' or 'CLOUD'",
    ),
    ("1.17.0", "migration", "DEPLOYMENT_EDITION", "SELF_HOSTED", "1 validation error for DifyConfig"),
    ("1.14.2", "worker", "UPLOAD_FILE_SIZE_LIMIT", "many", "Input should be a valid integer"),
    ("1.12.1", "worker-beat", "ACCESS_TOKEN_EXPIRE_MINUTES", "0", "Input should be greater than 0"),
    ("1.17.1", "api-websocket", "STORAGE_TYPE", "floppy", "Input should be 'opendal', 's3'"),
    ("1.17.1", "plugin-daemon", "DB_PORT", "seven", 'strconv.ParseInt: parsing "seven": invalid syntax'),
    ("1.17.1", "web", "CONSOLE_API_URL", "", "Field required"),
    ("1.17.1", "sandbox", "WORKER_TIMEOUT", "soon", "invalid syntax"),
    ("1.17.1", "agent-backend", "DIFY_AGENT_SERVER_SECRET_KEY", "short", "unpadded base64url"),
    ("1.17.1", "local-sandbox", "SHELLCTL_AUTH_TOKEN", "", "Field required"),
]


@pytest.mark.parametrize("wrong", INVALID, ids=[f"{one[0]}-{one[1]}" for one in INVALID])
def test_one_invalid_value_ends_the_image_with_exit_code_1(
    engine: Any, wrong: tuple[str, str, str, str, str]
) -> None:
    release, service, name, value, said = wrong
    variables = rendered(release, service)
    assert name in variables

    code, log = ended(engine, service, variables | {name: value})

    assert code == 1, log
    assert name in log
    assert said in log


@pytest.fixture(scope="module")
def slow() -> Iterator[SmallDify]:
    """An instance whose api takes its time, and publishes no schema."""
    variables = {"DIFY_STANDIN_START_SECONDS": str(START_SECONDS), "SWAGGER_UI_ENABLED": "false"}
    dify = SmallDify(variables=variables)
    try:
        yield dify.start()
    finally:
        dify.remove()


@pytest.mark.parametrize("prefix", ["/console/api", "/v1", "/api", "/files", "/mcp"])
def test_schemas_are_hidden_by_the_variable(slow: SmallDify, prefix: str) -> None:
    for path in ("swagger.json", "swagger-ui.html"):
        answer = httpx.get(f"{slow.address()}{prefix}/{path}", timeout=30)
        assert answer.status_code in {401, 404}, path
        assert "paths" not in answer.text


def test_api_listens_before_it_is_ready(slow: SmallDify) -> None:
    slow.client.containers.get(slow.api).restart(timeout=30)
    address = httpx.URL(slow.address())

    def listens() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((address.host, address.port or 80)) == 0

    slow.wait(listens, "the listening socket")
    started = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{address}/health", timeout=READ_SECONDS)
    answer = httpx.get(f"{address}/health", timeout=120)

    assert answer.status_code == 200
    assert time.monotonic() - started > READ_SECONDS
