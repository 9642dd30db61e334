"""The files of the edge that hold an address known to the engine alone, and the revision with that address."""

import hashlib
from collections.abc import Mapping

LIVE_DIRECTORY = "live"
# How long nginx uses the backup alone after the address of a service failed.
DIRECT_AGAIN_SECONDS = 60


def completed(
    revision: str, files: Mapping[str, str], *, service: str, address: str, port: int
) -> tuple[str, dict[str, str]]:
    """Return the revision and the files with the address of a service in them.

    nginx connects to that address. While it fails, the backup is the proxy of stream/upstreams.conf, which resolves the
    service's name for each connection. The revision depends on the address, because the configuration does.
    """
    name = f"{revision}-{hashlib.sha256(address.encode()).hexdigest()[:6]}"
    address_file, revision_file = f"{LIVE_DIRECTORY}/{service}.conf", f"{LIVE_DIRECTORY}/revision.conf"
    proxy = files[address_file].strip()
    return name, {
        **files,
        address_file: (
            f"server {address}:{port} max_fails=1 fail_timeout={DIRECT_AGAIN_SECONDS}s;\n"
            # It never counts as failed, so it finds the service at a new address.
            f"{proxy.removesuffix(';')} max_fails=0 backup;\n"
        ),
        revision_file: files[revision_file].replace(revision, name),
    }
