"""The Docker engine that everything here uses: chosen once, as docker's own command line chooses it.

`DOCKER_HOST` names the engine; else `DOCKER_CONTEXT` names a context; else the current context of docker's
configuration counts; else the socket of this machine. Docker's SDK and the Pulumi provider each have rules of their
own, so nothing here leaves the choice to them: the SDK is given the address, the provider gets it in its environment.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from infra.engine import packages

if TYPE_CHECKING:
    import docker

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
DEFAULT_CONTEXT = "default"
SCHEMES = ("unix", "tcp", "http", "https", "ssh")
# What libraries would take instead of the engine that was chosen.
VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_TLS")
SSH_SECONDS = 20
CERTIFICATES = ("ca.pem", "cert.pem", "key.pem")


class EngineChoiceError(Exception):
    """The engine cannot be determined, or not be used. `fix` says what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the engine is. `chosen_by` says what named it; `certificates` is the directory of its TLS files."""

    address: str
    chosen_by: str
    certificates: Path | None = None

    @property
    def scheme(self) -> str:
        """How the engine is reached: one of SCHEMES."""
        return urlsplit(self.address).scheme

    @property
    def local(self) -> bool:
        """Whether the engine runs on this machine, so that its ports, addresses and disk are ours."""
        return self.scheme == "unix"

    def __str__(self) -> str:
        """Return the address and what named it, for messages."""
        return f"{self.address} ({self.chosen_by})"

    def variables(self) -> dict[str, str]:
        """Return the environment that makes docker's command line, its SDK and the provider take this engine."""
        if self.certificates is None:
            return {"DOCKER_HOST": self.address}
        return {
            "DOCKER_HOST": self.address,
            "DOCKER_CERT_PATH": str(self.certificates),
            "DOCKER_TLS_VERIFY": "1",
        }

    def client(self, timeout: float) -> "docker.DockerClient":
        """Return a client of docker's SDK. It connects immediately, and raises what the SDK raises."""
        packages.whole("docker")
        import docker  # noqa: PLC0415  # half a second that most commands do not need

        tls: docker.TLSConfig | bool = False
        if self.certificates is not None:
            authority, certificate, key = (str(self.certificates / name) for name in CERTIFICATES)
            tls = docker.TLSConfig(client_cert=(certificate, key), ca_cert=authority, verify=True)
        return docker.DockerClient(
            base_url=self.address,
            version="auto",
            timeout=int(timeout),
            tls=tls,
            # OpenSSH, as docker's command line: its configuration, agent and known hosts count.
            use_ssh_client=self.scheme == "ssh",
        )


def chosen(environ: Mapping[str, str] | None = None) -> Endpoint:
    """Return the engine that docker's command line would use. Raises EngineChoiceError."""
    environ = os.environ if environ is None else environ
    if address := environ.get("DOCKER_HOST"):
        return _checked(
            Endpoint(
                address=address, chosen_by="DOCKER_HOST", certificates=_certificates_of(environ, address)
            )
        )
    if name := environ.get("DOCKER_CONTEXT"):
        return _context(name, f"DOCKER_CONTEXT={name}", environ)
    if name := _current_context(environ):
        return _context(name, f"docker's current context {name}", environ)
    return Endpoint(address=DEFAULT_ADDRESS, chosen_by="docker's default")


def client(timeout: float) -> "docker.DockerClient":
    """Return a client of the engine that is chosen. Raises EngineChoiceError and what docker's SDK raises."""
    return chosen().client(timeout)


def child_environment(environ: Mapping[str, str], endpoint: Endpoint) -> dict[str, str]:
    """Return `environ` for a child process that must use this engine and no other.

    The provider would take DOCKER_CONTEXT before DOCKER_HOST, and certificates for a socket.
    """
    return {name: value for name, value in environ.items() if name not in VARIABLES} | endpoint.variables()


def provider_takes(environ: Mapping[str, str], configured: str = "") -> str:
    """Return the address that Pulumi's Docker provider takes in an environment.

    `configured` is the stack's `docker:host`. A context is written `context <name>`.
    """
    if name := environ.get("DOCKER_CONTEXT"):
        return f"context {name}"
    return configured or environ.get("DOCKER_HOST") or DEFAULT_ADDRESS


def ssh_problem(endpoint: Endpoint) -> str:
    """Say what is missing for an engine at `ssh://`; empty when nothing is, or it is reached in another way."""
    if endpoint.scheme != "ssh":
        return ""
    if shutil.which("ssh") is None:
        return "this machine has no ssh: install OpenSSH's client"
    parts = urlsplit(endpoint.address)
    user = ["-l", parts.username] if parts.username else []
    port = ["-p", str(parts.port)] if parts.port else []
    command = ["ssh", "-o", "BatchMode=yes", *user, *port, "--", str(parts.hostname)]
    try:
        done = subprocess.run(
            [*command, "docker version --format '{{.Server.Version}}'"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=SSH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"ssh to {parts.hostname} did not answer within {SSH_SECONDS} s"
    if done.returncode == 0:
        return ""
    output = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return f"ssh to {parts.hostname}, without a password prompt, fails: {output}"


def _checked(endpoint: Endpoint) -> Endpoint:
    try:
        parts = urlsplit(endpoint.address)
        known = parts.scheme in SCHEMES and bool(parts.path if parts.scheme == "unix" else parts.hostname)
        _ = parts.port
    except ValueError:
        known = False
    if not known:
        raise EngineChoiceError(
            f"{endpoint.chosen_by} names {endpoint.address!r}, which is no address of a Docker engine",
            "use unix:///path/of/docker.sock, tcp://host:port or ssh://user@host",
        )
    if endpoint.scheme == "ssh" and parts.path not in {"", "/"}:
        raise EngineChoiceError(
            f"{endpoint.chosen_by} names {endpoint.address!r}: a path after ssh://host is not supported",
            "leave the path out: docker on that host finds its socket",
        )
    if endpoint.certificates is not None:
        missing = [name for name in CERTIFICATES if not (endpoint.certificates / name).is_file()]
        if missing:
            raise EngineChoiceError(
                f"the engine at {endpoint} is reached by TLS, and {endpoint.certificates} has no "
                f"{', '.join(missing)}",
                "put the files there, or name another directory by DOCKER_CERT_PATH",
            )
    return endpoint


def _certificates_of(environ: Mapping[str, str], address: str) -> Path | None:
    """Return the directory of TLS files as the environment names it."""
    if urlsplit(address).scheme not in {"tcp", "https"} or not environ.get("DOCKER_TLS_VERIFY"):
        return None
    return Path(environ.get("DOCKER_CERT_PATH") or _configuration(environ))


def _configuration(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or Path.home()) / ".docker")


def _current_context(environ: Mapping[str, str]) -> str:
    file = _configuration(environ) / "config.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as problem:
        raise EngineChoiceError(
            f"docker's configuration {file} cannot be read: {problem}",
            "fix the file, or name the engine by DOCKER_HOST",
        ) from None
    name = document.get("currentContext") if isinstance(document, dict) else ""
    return str(name or "")


def _context(name: str, chosen_by: str, environ: Mapping[str, str]) -> Endpoint:
    if name == DEFAULT_CONTEXT:
        return Endpoint(address=DEFAULT_ADDRESS, chosen_by=chosen_by)
    store = _configuration(environ) / "contexts"
    digest = hashlib.sha256(name.encode()).hexdigest()
    file = store / "meta" / digest / "meta.json"
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))["Endpoints"]["docker"]
        address, unverified = str(entry["Host"]), bool(entry.get("SkipTLSVerify"))
    except FileNotFoundError:
        raise EngineChoiceError(
            f"{chosen_by}: docker has no such context (no {file})",
            "`docker context ls` lists them; choose one, or name the engine by DOCKER_HOST",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise EngineChoiceError(
            f"{chosen_by}: {file} cannot be read: {type(problem).__name__}: {problem}",
            "create the context again, or name the engine by DOCKER_HOST",
        ) from None
    certificates = store / "tls" / digest / "docker"
    endpoint = Endpoint(
        address=address, chosen_by=chosen_by, certificates=certificates if certificates.is_dir() else None
    )
    if unverified and endpoint.scheme in {"tcp", "https"}:
        raise EngineChoiceError(
            f"{chosen_by} does not verify the engine's certificate (SkipTLSVerify): any server could pose as it",
            "create the context again with the CA that signed the engine's certificate",
        )
    return _checked(endpoint)
