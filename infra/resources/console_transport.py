"""HTTP requests to Dify's api from inside its own container, through the Docker Engine API.

Nothing has to be published for it, it works with a remote engine, and no secret becomes visible: a request goes
to the process's standard input, never to its arguments or environment.
"""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra import ports

API = f"http://127.0.0.1:{ports.API}"
REQUEST_SECONDS = 60
EXEC_MARGIN_SECONDS = 15

# Runs in the api container, which has Python: one JSON line in, one JSON line out.
SCRIPT = """
import json, sys, urllib.error, urllib.request
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None
asked = json.loads(sys.stdin.readline())
body = asked["body"]
request = urllib.request.Request(asked["url"], method=asked["method"], headers=asked["headers"],
                                 data=None if body is None else body.encode())
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Stay)
try:
    answer = opener.open(request, timeout=asked["timeout"])
except urllib.error.HTTPError as problem:
    answer = problem
except OSError as problem:
    print(json.dumps({"problem": str(problem)}))
    sys.exit(0)
print(json.dumps({"status": answer.status, "headers": answer.headers.items(),
                  "body": answer.read().decode("utf-8", "replace")}))
"""


class TransportError(Exception):
    """The request did not reach Dify's api, or its answer did not come back."""


class ContainerMissingError(TransportError):
    """The api container does not exist or does not run."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer. `headers` keeps repeated ones."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""

    def json(self) -> Any:  # noqa: ANN401  # whatever Dify answers
        """Return the parsed body; an empty mapping for a body that is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    def cookies(self) -> dict[str, str]:
        """Return the cookies that the answer sets."""
        found = {}
        for name, value in self.headers:
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                found[key.strip()] = rest.partition(";")[0]
        return found


@dataclass(frozen=True, kw_only=True)
class Request:
    """An HTTP request to a path of Dify's api."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    json_body: Any = None

    def line(self) -> bytes:
        """Return the request as the line that the script reads."""
        body = None if self.json_body is None else json.dumps(self.json_body)
        headers = dict(self.headers) | ({} if body is None else {"Content-Type": "application/json"})
        asked = {
            "method": self.method,
            "url": f"{API}{self.path}",
            "headers": headers,
            "body": body,
            "timeout": REQUEST_SECONDS,
        }
        return json.dumps(asked).encode() + b"\n"


def container_id(container: str) -> str:
    """Return the id of the running container of that name. Raises ContainerMissingError."""
    import docker  # noqa: PLC0415  # only where the engine is needed

    try:
        found = docker.from_env(timeout=EXEC_MARGIN_SECONDS).api.inspect_container(container)
    except docker.errors.NotFound as problem:
        raise ContainerMissingError(f"there is no container {container}") from problem
    if not found["State"]["Running"]:
        raise ContainerMissingError(f"container {container} does not run ({found['State']['Status']})")
    return str(found["Id"])


def send(container: str, request: Request) -> Answer:
    """Carry out `request` inside the container. Raises TransportError, also when it takes too long."""
    import docker  # noqa: PLC0415
    from docker.utils.socket import frames_iter  # noqa: PLC0415

    client = docker.from_env(timeout=REQUEST_SECONDS + EXEC_MARGIN_SECONDS)
    identity = container_id(container)
    try:
        run = client.api.exec_create(identity, ["python3", "-c", SCRIPT], stdin=True)
        stream = client.api.exec_start(run["Id"], socket=True)
        raw: socket.socket = getattr(stream, "_sock", stream)
        raw.settimeout(REQUEST_SECONDS + EXEC_MARGIN_SECONDS)
        raw.sendall(request.line())
        output = {1: b"", 2: b""}
        for number, data in frames_iter(stream, tty=False):
            output[number] += data
        stream.close()
    except (docker.errors.APIError, OSError) as problem:
        raise TransportError(f"{request.method} {request.path} in {container}: {problem}") from problem
    return _answer(output[1], output[2], request, container)


def _answer(stdout: bytes, stderr: bytes, request: Request, container: str) -> Answer:
    try:
        told = json.loads(stdout)
    except ValueError:
        said = stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else "no output"
        raise TransportError(
            f"{request.method} {request.path} in {container} gave no answer: {reason}"
        ) from None
    if "problem" in told:
        raise TransportError(f"{request.method} {request.path} in {container}: {told['problem']}")
    return Answer(
        status=told["status"],
        headers=tuple((name, value) for name, value in told["headers"]),
        body=told["body"],
    )
