"""The data tier: permissions and data guard, PostgreSQL, Redis. Other vector stores read variables alone."""

from collections.abc import Mapping
from dataclasses import replace

import pulumi

from infra.catalogue.container_paths import (
    API_UID,
    POSTGRES_DATA,
    POSTGRES_PASSWORD_FILE,
    REDIS_CONFIG,
    REDIS_PASSWORD_FILE,
    REDIS_UID,
)
from infra.catalogue.releases import Release, version_number
from infra.services.files import redis_config
from infra.services.spec import Delivery, Detail, Details, File
from infra.settings.stack import Settings

FIRST_WEAVIATE = "1.27.0"

# The marker says which release has migrated the data. What made the volumes is on their labels
# (infra.guards.volumes).
_GUARD = """
set -eu
marker=/app_storage/.dify-kit
refuse() { echo "refused: $1" >&2; exit 3; }
if [ -f "$marker" ]; then
  . "$marker"
  [ "$release" -le "$KIT_RELEASE_NUMBER" ] || refuse "the data was migrated by a newer Dify ($version) than \
dify:release $KIT_RELEASE. Dify cannot migrate back: set dify:release to $version or newer."
  [ "$release" -ge "${KIT_OLDEST_NUMBER:-0}" ] || refuse "the data is of Dify $version, and $KIT_RELEASE \
migrates that of $KIT_OLDEST and newer: set dify:release to $version again, then use the command upgrade, which goes \
through $KIT_OLDEST."
fi
minor() { rest=${1#*.}; echo "${rest%%.*}"; }
if [ -n "$KIT_WEAVIATE" ] && [ -f "$marker" ]; then
  weaviate="${weaviate:-$KIT_WEAVIATE_UNRECORDED}"
  case " $KIT_WEAVIATE_AFTER " in
    *" $(minor "$weaviate") "*) ;;
    *)
      rungs=""
      for rung in $KIT_WEAVIATE_LADDER; do
        [ "$(minor "$rung")" -le "$(minor "$weaviate")" ] || rungs="$rungs $rung"
      done
      [ "$(minor "$KIT_WEAVIATE")" -gt "$(minor "$weaviate")" ] || refuse "the vectors were written by Weaviate \
$weaviate, which $KIT_WEAVIATE cannot read: set dify:weaviateVersion or dify:release to what it was."
      refuse "the vectors were written by Weaviate $weaviate, and $KIT_WEAVIATE reads those of the minor release \
before it. Back the volume up, then climb with dify:weaviateVersion, one 'up' for each of:$rungs. The last one is the \
release's own: remove the setting there."
      ;;
  esac
fi
chown -R "$KIT_UID:$KIT_UID" /app_storage
printf 'release=%s\\nversion=%s\\n' "$KIT_RELEASE_NUMBER" "$KIT_RELEASE" >"$marker.new"
[ -z "${KIT_WEAVIATE:-${weaviate:-}}" ] || echo "weaviate=${KIT_WEAVIATE:-$weaviate}" >>"$marker.new"
mv "$marker.new" "$marker"
echo "storage belongs to uid $KIT_UID; the data is of Dify $KIT_RELEASE or older"
"""

# The password comes last. A configuration may be in the image: Debian's package brings one.
# The entrypoints of the official image and of the kit's own hand the data to Redis' user, and drop to it.
_CONFIGURED_REDIS = f"""
trap 'exit 0' TERM INT
until [ -f {REDIS_PASSWORD_FILE} ]; do
  sleep 0.1
done
for entrypoint in docker-entrypoint.sh entrypoint.sh; do
  if command -v "$entrypoint" >/dev/null; then
    exec "$entrypoint" redis-server {REDIS_CONFIG}
  fi
done
echo "the image has no entrypoint of Redis" >&2
exit 127
"""


def init_permissions(settings: Settings, release: Release) -> Details:
    """Return the job that gives the storage volume to Dify's user, unless the data is of a newer release."""
    return Details(
        command=(_GUARD,),
        environment={
            "KIT_RELEASE": release.version,
            "KIT_RELEASE_NUMBER": str(release.number),
            "KIT_UID": str(API_UID),
            **_oldest(release),
            **_weaviate_guard(settings, release),
        },
    )


def _oldest(release: Release) -> dict[str, str]:
    """Return the oldest release whose data this one migrates, where that is not every one."""
    if not release.upgrade_from:
        return {}
    number = version_number(release.upgrade_from)
    return {"KIT_OLDEST": release.upgrade_from, "KIT_OLDEST_NUMBER": str(number)}


def _weaviate_guard(settings: Settings, release: Release) -> dict[str, str]:
    """Return what the guard compares the vector volume with; nothing to compare with another vector store."""
    if settings.own_vector_store != "weaviate":
        return {"KIT_WEAVIATE": ""}
    version = release.images["weaviate"].tag
    minor = int(version.split(".")[1])
    return {
        "KIT_WEAVIATE": version,
        "KIT_WEAVIATE_AFTER": f"{minor - 1} {minor}",
        "KIT_WEAVIATE_LADDER": " ".join(release.weaviate_ladder or (version,)),
        # What every stack ran before the version was written down.
        "KIT_WEAVIATE_UNRECORDED": FIRST_WEAVIATE,
    }


def postgres(settings: Settings, _release: Release) -> Details:
    """Return a PostgreSQL: Dify's database, or the vector store pgvector."""
    return Details(
        command=("postgres", "-c", f"max_connections={settings.postgres_max_connections}"),
        environment={
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": "dify",
            "POSTGRES_PASSWORD_FILE": POSTGRES_PASSWORD_FILE,
            "PGDATA": f"{POSTGRES_DATA}/pgdata",
        },
        files=(File(path=POSTGRES_PASSWORD_FILE, content=settings.secrets.postgres_password, mode="0400"),),
        # initdb alone reads it. `infra.resources.role_password` changes the password of a database that exists.
        delivery=Delivery.FIRST_START,
    )


def redis(settings: Settings, password: pulumi.Output[str]) -> Details:
    """Return a Redis that writes its data to disk."""
    return Details(
        command=("redis-server", REDIS_CONFIG),
        files=(
            File(path=REDIS_CONFIG, content=redis_config(settings, password), mode="0400", owner=REDIS_UID),
            File(path=REDIS_PASSWORD_FILE, content=password, mode="0400", owner=REDIS_UID),
        ),
    )


def dify_redis(settings: Settings, _release: Release) -> Details:
    """Return Dify's Redis. Its configuration comes to the running container: another password is no restart."""
    return replace(
        redis(settings, settings.secrets.redis_password),
        command=("sh", "-c", _CONFIGURED_REDIS),
        delivery=Delivery.RUNNING,
    )


DETAILS: Mapping[str, Detail] = {
    "init-permissions": init_permissions,
    "db-postgres": postgres,
    "pgvector": postgres,
    "redis": dify_redis,
}
