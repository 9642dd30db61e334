"""The data tier: permissions and data guard, PostgreSQL, Redis, the vector store."""

import pulumi

from infra.catalogue import ports
from infra.catalogue.releases import Release
from infra.services.environment import environment
from infra.services.files import redis_config
from infra.services.limits import limits_of
from infra.services.networks import DATA
from infra.services.spec import File, HealthCheck, Mount, ServiceSpec
from infra.settings.stack import Settings

POSTGRES_PASSWORD_FILE = "/run/secrets/postgres_password"  # noqa: S105  # a path
REDIS_CONFIG = "/etc/redis/redis.conf"
REDIS_PASSWORD_FILE = "/etc/redis/password"  # noqa: S105  # a path
REDIS_UID = 999
API_UID = 1001

FIRST_WEAVIATE = "1.27.0"
# Weaviate writes what it holds in memory before it ends, and must never be killed while it does.
WEAVIATE_STOP_SECONDS = 300

# PostgreSQL's entrypoint starts as root, takes its directory over and drops to `postgres`.
POSTGRES_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "SETGID", "SETUID")

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


def volumes() -> tuple[str, ...]:
    """Return the logical names of the stack's volumes for the data tier."""
    return ("app_storage", "postgres", "redis", "vector")


def services(settings: Settings, release: Release) -> list[ServiceSpec]:
    """Return the services of the data tier in start order."""
    return [
        _init_permissions(settings, release),
        _postgres("db_postgres", "postgres", "postgres", settings),
        redis(
            "redis",
            settings.secrets.redis_password,
            settings,
            networks=(DATA,),
            volume="redis",
            after=("init_permissions",),
        ),
        _vector_store(settings, release),
    ]


def _init_permissions(settings: Settings, release: Release) -> ServiceSpec:
    return ServiceSpec(
        name="init_permissions",
        image="busybox",
        networks=(),
        job=True,
        user="0",
        entrypoint=("sh", "-c"),
        command=(_GUARD,),
        environment={
            "KIT_RELEASE": release.version,
            "KIT_RELEASE_NUMBER": str(release.number),
            "KIT_UID": str(API_UID),
            **_weaviate_guard(settings, release),
        },
        mounts=(Mount(volume="app_storage", path="/app_storage"),),
        capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER"),
        limits=limits_of("init_permissions", settings),
        ready_timeout=120,
    )


def _weaviate_guard(settings: Settings, release: Release) -> dict[str, str]:
    """Return what the guard compares the vector volume with; nothing to compare with another vector store."""
    if settings.vector_store != "weaviate":
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


def _postgres(name: str, image: str, volume: str, settings: Settings) -> ServiceSpec:
    data = "/var/lib/postgresql/data"
    return ServiceSpec(
        name=name,
        image=image,
        networks=(DATA,),
        after=("init_permissions",),
        environment={
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": "dify",
            "POSTGRES_PASSWORD_FILE": POSTGRES_PASSWORD_FILE,
            "PGDATA": f"{data}/pgdata",
        },
        command=("postgres", "-c", f"max_connections={settings.postgres_max_connections}"),
        files=(File(path=POSTGRES_PASSWORD_FILE, content=settings.secrets.postgres_password, mode="0400"),),
        mounts=(Mount(volume=volume, path=data),),
        # By TCP: the server that runs during the first initialisation listens on its socket alone.
        health=HealthCheck(command=("pg_isready", "-q", "-h", "127.0.0.1", "-U", "postgres", "-d", "dify")),
        capabilities=POSTGRES_CAPABILITIES,
        stop_grace=60,
        limits=limits_of(name, settings),
    )


def redis(  # what the two of a stack differ in
    name: str,
    password: pulumi.Output[str],
    settings: Settings,
    *,
    networks: tuple[str, ...],
    volume: str,
    after: tuple[str, ...] = (),
) -> ServiceSpec:
    """Return a Redis that writes to disk what it is told."""
    ping = f'REDISCLI_AUTH="$(cat {REDIS_PASSWORD_FILE})" redis-cli -p {ports.REDIS} ping | grep -q PONG'
    return ServiceSpec(
        name=name,
        image="redis",
        networks=networks,
        after=after,
        command=("redis-server", REDIS_CONFIG),
        files=(
            File(
                path=REDIS_CONFIG,
                content=redis_config(settings, password),
                mode="0400",
                owner=REDIS_UID,
            ),
            File(
                path=REDIS_PASSWORD_FILE,
                content=password,
                mode="0400",
                owner=REDIS_UID,
            ),
        ),
        mounts=(Mount(volume=volume, path="/data"),),
        health=HealthCheck(command=("sh", "-c", ping)),
        # The image's entrypoint starts as root and drops to the user that the files belong to.
        capabilities=("CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"),
        stop_grace=60,
        limits=limits_of(name, settings),
    )


def _vector_store(settings: Settings, release: Release) -> ServiceSpec:
    if settings.vector_store == "pgvector":
        return _postgres("pgvector", "pgvector", "vector", settings)
    if settings.vector_store == "qdrant":
        probe = (
            f"exec 3<>/dev/tcp/127.0.0.1/{ports.QDRANT}; "
            r"printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3; grep -q '200 OK' <&3"
        )
        path = "/qdrant/storage"
        command: tuple[str, ...] = ("bash", "-c", probe)
    else:
        ready = f"http://127.0.0.1:{ports.WEAVIATE}/v1/.well-known/ready"
        path, command = "/var/lib/weaviate", ("wget", "-q", "-O", "/dev/null", ready)
    return ServiceSpec(
        name=settings.vector_store,
        image=settings.vector_store,
        networks=(DATA,),
        after=("init_permissions",),
        environment=environment(settings.vector_store, settings, release),
        mounts=(Mount(volume="vector", path=path),),
        health=HealthCheck(command=command),
        stop_grace=WEAVIATE_STOP_SECONDS if settings.vector_store == "weaviate" else 60,
        limits=limits_of(settings.vector_store, settings),
    )
