"""Paths in the edge's container, and the times of a reload.

The configuration is on a volume of its own:

::

    <EDGE_DIRECTORY>/releases/<revision>/nginx.conf, http/, servers/, ...   root's, read by nginx
    <EDGE_DIRECTORY>/releases/<revision>/tls/                               certificate and key that the kit knows
    <EDGE_DIRECTORY>/current -> releases/<revision>                         what nginx runs

A recreated or restarted container therefore starts with the configuration that ran last.
"""

from infra.catalogue.container_paths import (
    CHALLENGES,
    EDGE_DIRECTORY,
    EDGE_RUN_DIRECTORY,
    EDGE_RUN_MEGABYTES,
    PUBLISHED,
    USAGE_DIRECTORY,
)

__all__ = ["CHALLENGES", "EDGE_DIRECTORY", "PUBLISHED", "USAGE_DIRECTORY"]

RELEASES_DIRECTORY = f"{EDGE_DIRECTORY}/releases"
# Request bodies of the LLM proxy that are too large for memory, on the volume of nginx's temporary files.
BODIES_DIRECTORY = "/tmp/edge_llm_bodies"  # noqa: S108  # the container's own
CURRENT = f"{EDGE_DIRECTORY}/current"
NGINX_CONFIG = f"{CURRENT}/nginx.conf"
# Sockets, the process id and the mark of a drain, on a tmpfs.
RUN_DIRECTORY = EDGE_RUN_DIRECTORY
# Cached introspection results. They hold app keys, so they are never on a disk.
INTROSPECTION_CACHE = f"{RUN_DIRECTORY}/introspection"
# The zone of its keys: about 2 000 keys of 128 bytes. The file of a result holds the token and the response, at most
# `INTROSPECTION_BYTES`, so all of them fit into the tmpfs.
INTROSPECTION_KEYS = "256k"
INTROSPECTION_BYTES = 24 * 1024
RUN_MEGABYTES = EDGE_RUN_MEGABYTES
# While this file exists, each response closes its connection, so few idle ones are left at a reload.
DRAIN_MARK = f"{RUN_DIRECTORY}/drain"
# A reload closes idle connections; a client that sends a request on one at that moment would lose it. The file takes
# effect within a second (open_file_cache_valid). Many short sleeps, each a process: where clients have to wait for the
# processor, so has the drain, which takes longer there.
DRAIN_SECONDS = 2.5
DRAIN = f"touch {DRAIN_MARK}; for _ in $(seq {round(DRAIN_SECONDS / 0.1)}); do sleep 0.1; done"
AFTER_RELOAD_SECONDS = 0.5
# Relative to nginx.conf: certificates that the kit knows go live with the rest of the configuration.
CERTIFICATE_FILE, KEY_FILE = "tls/fullchain.pem", "tls/key.pem"
