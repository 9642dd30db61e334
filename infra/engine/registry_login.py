"""Whether the operator is logged in to a registry, by `docker login` or by a credential helper."""

import os
from pathlib import Path


def config_file() -> Path:
    """Return the file in which `docker login` keeps credentials, or the names of their helpers."""
    directory = os.environ.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path.home() / ".docker") / "config.json"


def logged_in(host: str) -> Path | None:
    """Return the file by which a client of this user logs in to the registry `host[:port]`; None when it cannot.

    Credentials are found, not returned: the provider reads the file.
    """
    from docker import auth, errors  # noqa: PLC0415  # the program needs it for mirrors only

    file = config_file()
    if not host or not file.is_file():
        return None
    try:
        found = auth.load_config(str(file)).resolve_authconfig(host)
    except errors.DockerException:
        # A helper that is missing, or does not answer: the pull reports the registry's own error.
        return None
    return file if found else None
