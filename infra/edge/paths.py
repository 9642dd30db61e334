"""Where things lie in the edge's container, and how a reload goes there.

The configuration is on a volume of its own:

::

    <EDGE_DIRECTORY>/releases/<revision>/nginx.conf, http/, servers/, ...   root's, read by nginx
    <EDGE_DIRECTORY>/releases/<revision>/tls/                               certificate and key that the kit knows
    <EDGE_DIRECTORY>/current -> releases/<revision>                         what nginx runs

A recreated or restarted container therefore comes back with the configuration that ran last.
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
# What the OAuth gateway said about tokens: app keys among it, so never on a disk.
VERDICTS = f"{RUN_DIRECTORY}/verdicts"
# nginx's zone of keys for them: about 2 000, 128 bytes each. A verdict's file holds its token and the answer, at most
# `VERDICT_BYTES`, so that all of them fit into the tmpfs.
VERDICT_KEYS = "256k"
VERDICT_BYTES = 24 * 1024
RUN_MEGABYTES = EDGE_RUN_MEGABYTES
# While this file exists, answers close their connections: a reload then meets no idle ones.
DRAIN_MARK = f"{RUN_DIRECTORY}/drain"
# Idle connections of clients are closed by a reload; a client that used one in that moment would lose its
# request. While draining, each answer says `Connection: close`, so that few idle ones are left. The mark is seen
# within a second (open_file_cache_valid).
DRAIN_SECONDS = 2.5
AFTER_RELOAD_SECONDS = 0.5
# Relative to nginx.conf: certificates that the kit knows go live with the rest of the configuration.
CERTIFICATE_FILE, KEY_FILE = "tls/fullchain.pem", "tls/key.pem"
