"""The files of the edge that only the engine can complete: where a service is, and the name of all files with it."""

import hashlib
from collections.abc import Mapping

LIVE_DIRECTORY = "live"
# How long a service that did not answer at its address is reached through the hop alone.
DIRECT_AGAIN_SECONDS = 60


def completed(
    revision: str, files: Mapping[str, str], *, service: str, address: str, port: int
) -> tuple[str, dict[str, str]]:
    """Return revision and files with the address of a service in them.

    nginx reaches the service there, and through the hop, which asks the name server for each connection, when
    nobody answers there. Another address is another configuration, so the revision names it too.
    """
    name = f"{revision}-{hashlib.sha256(address.encode()).hexdigest()[:6]}"
    upstream, told = f"{LIVE_DIRECTORY}/{service}.conf", f"{LIVE_DIRECTORY}/revision.conf"
    hop = files[upstream].strip()
    return name, {
        **files,
        upstream: (
            f"server {address}:{port} max_fails=1 fail_timeout={DIRECT_AGAIN_SECONDS}s;\n"
            # Never given up: it is what finds the service again.
            f"{hop.removesuffix(';')} max_fails=0 backup;\n"
        ),
        told: files[told].replace(revision, name),
    }
