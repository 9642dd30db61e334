"""Refuses a port that something else uses, before anything is created.

The engine finds out only when it starts the edge, which comes last: after the data, Dify and its admin.
"""

import os
import socket
from urllib.parse import urlsplit

import pulumi

from infra.settings import Settings

ENGINE_TIMEOUT_SECONDS = 15
DEFAULT_ENGINE = "unix:///var/run/docker.sock"


def check(settings: Settings) -> None:
    """Raise pulumi.RunError when the edge could not publish its ports."""
    _check(settings, "httpPort", settings.http_port)
    if settings.tls.on:
        _check(settings, "httpsPort", settings.https_port)


def _check(settings: Settings, key: str, port: int) -> None:
    found = publishers(port)
    if found is None or f"dify-{settings.stack}-nginx" in found:
        return
    address = settings.bind_address
    reason = f"is published by container {found[0]}" if found else ""
    if not reason and engine_is_local() and (problem := bind_problem(address, port)):
        reason = f"on {address} cannot be used: {problem}"
    if reason:
        raise pulumi.RunError(
            f"dify:{key}: {port} {reason}; stop what uses it, or choose another port: "
            f"`pulumi config set dify:{key} <port> --stack {settings.stack}`"
        )


def publishers(port: int) -> list[str] | None:
    """Return the names of running containers that publish a TCP port; None when the engine does not answer."""
    import docker  # noqa: PLC0415  # the program needs the engine's API for its guards only
    import requests  # noqa: PLC0415

    try:
        listed = docker.from_env(timeout=ENGINE_TIMEOUT_SECONDS).api.containers()
    except (docker.errors.DockerException, requests.RequestException):
        # The provider says that in a moment, better than we could.
        return None
    return [
        entry["Names"][0].removeprefix("/")
        for entry in listed
        if any(one.get("PublicPort") == port and one.get("Type") == "tcp" for one in entry.get("Ports") or [])
    ]


def engine_is_local() -> bool:
    """Tell whether the engine's ports are this machine's."""
    return urlsplit(os.environ.get("DOCKER_HOST") or DEFAULT_ENGINE).scheme == "unix"


def bind_problem(address: str, port: int) -> str:
    """Say why nothing can listen there; empty when something can, or when only the engine may."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the engine does it: a port in TIME_WAIT is free, a listening one is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            return ""  # a privileged port; the engine runs as root
        except OSError as problem:
            return problem.strerror or str(problem)
    return ""
