"""HTTP requests to Dify's api from inside its own container.

Nothing has to be published for it, it works with a remote engine, and no secret becomes visible: a request
goes to the process's standard input, never to its arguments or environment.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from infra.catalogue import ports
from infra.engine.runtime import Runtime, WorkloadError, WorkloadMissingError, runtime

API = f"http://127.0.0.1:{ports.API}"
REQUEST_SECONDS = 60
# The engine's own answers (inspect, create an exec) come within this time, or not at all.
ENGINE_SECONDS = 15

# Runs in the api container, which has Python: one JSON line in, one JSON line out. It ends when the
# time is up, and also runs to its end when this side is killed: with `note`, the id of what Dify made is then
# written down before the answer is printed, so that the next run finds it.
SCRIPT = """
import base64, json, os, signal, sys, urllib.error, urllib.request

class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None

def send(request):
    body = request["body"]
    data = base64.b64decode(request["content"]) or (None if body is None else body.encode())
    request = urllib.request.Request(request["url"], method=request["method"], headers=request["headers"], data=data)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Stay)
    try:
        answer = opener.open(request)
    except urllib.error.HTTPError as problem:
        answer = problem
    return {"status": answer.status, "headers": answer.headers.items(),
            "body": answer.read().decode("utf-8", "replace")}

def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)

def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""

request = json.loads(sys.stdin.readline())
signal.alarm(request["seconds"])
note = request["note"]
try:
    if request["url"]:
        reply = send(request)
        if note and 200 <= reply["status"] < 300:
            try:
                write(note, str(json.loads(reply["body"])["id"]))
            except OSError as problem:
                reply["unnoted"] = str(problem)
    else:
        reply = {"note": read(note)}
except Exception as problem:
    reason = getattr(problem, "reason", problem)
    reply = {"problem": str(reason), "refused": isinstance(reason, ConnectionRefusedError)}
print(json.dumps(reply))
"""
# Isolated: neither PYTHON* variables nor modules in the working directory of the container change the script.
COMMAND = ["python3", "-I", "-c", SCRIPT]


class TransportError(Exception):
    """The answer did not come back. The request may have been carried out."""


class NotReachedError(TransportError):
    """Nothing listens on Dify's port: the request was not carried out."""


class ContainerMissingError(TransportError):
    """The api container does not exist or does not run."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer. `headers` keeps repeated ones; `unnoted` says why a note could not be written."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    unnoted: str = ""

    def json(self) -> dict[str, Any]:
        """Return the parsed body; an empty mapping for a body that is no JSON object."""
        try:
            reply = json.loads(self.body)
        except ValueError:
            return {}
        return reply if isinstance(reply, dict) else {}

    def cookies(self) -> dict[str, str]:
        """Return the cookies that the answer sets, `__Host-` ones too; not those that it takes back."""
        found = {}
        for name, value in self.headers:
            if name.lower() == "set-cookie":
                pair, _, _ = value.partition(";")
                key, _, content = pair.partition("=")
                if content.strip().strip('"'):
                    found[key.strip()] = content.strip()
        return found


@dataclass(frozen=True, kw_only=True)
class Request:
    """An HTTP request to a path of Dify's api.

    `seconds` is the most it may take. `note` is a file in the container that gets the `id` of the answer. `content`
    is a body of another type than JSON, which the headers name.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    json_body: Any = None
    seconds: int = REQUEST_SECONDS
    note: str = ""
    content: bytes = b""

    def line(self) -> bytes:
        """Return the request as the line that the script reads."""
        body = None if self.json_body is None else json.dumps(self.json_body)
        headers = dict(self.headers) | ({} if body is None else {"Content-Type": "application/json"})
        return _line(
            method=self.method,
            url=f"{API}{self.path}",
            headers=headers,
            body=body,
            note=self.note,
            seconds=self.seconds,
            content=self.content,
        )


class Transport(Protocol):
    """A way to one api. All raise TransportError."""

    def identity(self) -> str:
        """Return what changes when the api behind the way is another one."""

    def send(self, request: Request) -> Answer:
        """Carry out a request."""

    def read_note(self, path: str) -> str:
        """Return what an earlier request noted, empty when there is no such note."""


@dataclass(frozen=True)
class ContainerTransport:
    """The way into a container, by its reference (`infra.engine.runtime`)."""

    container: str

    def identity(self) -> str:
        """Return the id of the running container. Raises ContainerMissingError."""
        with _runtime(self.container) as found:
            return _identity(found)

    def send(self, request: Request) -> Answer:
        """Carry out `request` inside the container. Raises TransportError, also when it takes too long."""
        reply = self._exec(request.line(), request.seconds, f"{request.method} {request.path}")
        return Answer(
            status=reply["status"],
            headers=tuple((name, value) for name, value in reply["headers"]),
            body=reply["body"],
            unnoted=reply.get("unnoted", ""),
        )

    def read_note(self, path: str) -> str:
        """Return the content of a note. Raises TransportError."""
        line = _line(method="", url="", headers={}, body=None, note=path, seconds=ENGINE_SECONDS)
        return str(self._exec(line, ENGINE_SECONDS, "reading a note")["note"])

    def _exec(self, line: bytes, seconds: int, what: str) -> dict[str, Any]:
        with _runtime(self.container) as found:
            _identity(found)
            try:
                said = found.ask(COMMAND, seconds=seconds + ENGINE_SECONDS, line=line)
            except WorkloadError as problem:
                raise TransportError(f"{what} in {self.container}: {problem}") from None
        reply = _parse(said.stdout)
        if not reply:
            lines = said.stderr.decode(errors="replace").strip().splitlines()
            silence = f"no answer within {seconds} s" if said.late or not lines else lines[-1]
            raise TransportError(f"{what} in {self.container}: {silence}")
        if "problem" in reply:
            kind = NotReachedError if reply["refused"] else TransportError
            raise kind(f"{what} in {self.container}: {reply['problem']}")
        return reply


def _line(*, content: bytes = b"", **request: Any) -> bytes:  # noqa: ANN401  # what the script reads
    return json.dumps({**request, "content": base64.b64encode(content).decode()}).encode() + b"\n"


def _parse(stdout: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(stdout)
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}


def _runtime(container: str) -> Runtime:
    try:
        return runtime(container, ENGINE_SECONDS)
    except WorkloadError as problem:
        raise TransportError(str(problem)) from None


def _identity(found: Runtime) -> str:
    try:
        return found.identity()
    except WorkloadMissingError as problem:
        raise ContainerMissingError(str(problem)) from None
    except WorkloadError as problem:
        raise TransportError(str(problem)) from None
