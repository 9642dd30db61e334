"""New values for the secrets of the data tier and of Dify's services, one rotation at a time.

A rotation is a change of settings: the new values, and the number of the rotation, written together. The next `up`
brings them to the servers first, and then restarts their clients. A rotation that was cut off is therefore completed by
any `up`, and the same command continues it instead of making another value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.stack import changing, settings
from dify_kit.stack.changing import Change
from dify_kit.talk import say
from infra import hints
from infra.settings.rotations import ROTATED, ROTATIONS
from infra.settings.secrets import SHAPES
from infra.settings.stack import Settings
from infra.settings.vector_server import VECTOR_PASSWORD

GUIDE = "docs/guides/rotation.md"
SECRET_KEY = frozenset({"secret-key", "secretKey", "SECRET_KEY"})


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """What `dify-kit keys rotate NAME` does in a stack: `keys` get new values, `effect` says what clients notice."""

    name: str
    keys: tuple[str, ...]
    effect: str


def _restart(*besides: str) -> str:
    """Say how long Dify does not answer while it restarts with `besides`.

    The time is that of Dify's images on two cores (`infra.catalogue.health`), after the one that streams get to end.
    """
    services = ", ".join([*besides, "api"])
    return (
        f"Then {services} and its workers restart once: Dify does not answer while they start, up to 45 s on two "
        "cores, and a minute more where streamed answers have to end first"
    )


def _database(found: Settings) -> str:
    first = (
        "PostgreSQL restarts with its new password, and does not answer for some seconds"
        if found.kubernetes
        else "PostgreSQL takes the new password without a restart, and open connections go on"
    )
    return f"{first}. {_restart('the plugin daemon')}. A service that has not restarted can open no new connection"


def _redis(found: Settings) -> str:
    first = (
        "Redis restarts with its new password, and does not answer for some seconds"
        if found.kubernetes
        else "Redis accepts the old and the new password until every client has restarted, so none is refused"
    )
    return f"{first}. {_restart('the plugin daemon')}"


def _sandbox(_: Settings) -> str:
    return f"The sandbox restarts. {_restart()}. Code nodes fail from the first restart to the last, about a minute"


def _plugin(_: Settings) -> str:
    return (
        f"The plugin daemon restarts. {_restart()}. Plugins, and with them models, fail from the first restart to the "
        "last, about a minute"
    )


def _agent(_: Settings) -> str:
    return (
        f"The agent's sandbox and its backend restart. {_restart()}. Agents fail from the first restart to the last, "
        "about a minute, and runs of agents that are under way end"
    )


def _vector_store(found: Settings) -> str:
    if found.vector_store == "pgvector":
        return f"pgvector takes the new password without a restart. {_restart()}"
    return (
        f"{found.vector_store.capitalize()} restarts. {_restart()}. Searches in knowledge fail from the first restart "
        "to the last, about a minute, longer where the vector store loads much data"
    )


def _admin(_: Settings) -> str:
    return "Nothing restarts. The console accepts the new password alone"


def _init(_: Settings) -> str:
    return f"It guards the first set-up alone, which is done. {_restart()}"


_EFFECTS: Mapping[str, Callable[[Settings], str]] = MappingProxyType(
    {
        "database": _database,
        "redis": _redis,
        "sandbox": _sandbox,
        "plugin": _plugin,
        "agent": _agent,
        "vector-store": _vector_store,
        "admin": _admin,
        "init": _init,
    }
)


def known(name: str) -> bool:
    """Tell whether a name is one of this module: a secret that it rotates, or refuses to."""
    return name in ROTATED or name in SECRET_KEY


def of(name: str, found: Settings) -> Rotation:
    """Return the rotation of a name in a stack with these settings. Raises KitError with why there is none."""
    if name in SECRET_KEY:
        raise KitError(
            "SECRET_KEY is not rotated: Dify holds one at a time. Credentials that were encrypted with the old one "
            "become unreadable (OAuth clients of tools, triggers and data sources; in newer releases the private key "
            "of each workspace, and so every credential of models and tools), and every session, file link and token "
            "of a web app that it signed becomes invalid. Nothing was changed",
            f"{GUIDE}#secret_key has the steps for a key that was stolen",
        )
    keys = ROTATED[name]
    if name == "vector-store" and found.own_vector_store == "pgvector":
        if found.database is None:
            raise KitError(
                "vector-store: pgvector has the password of the database; nothing was changed",
                f"rotate both: `{hints.kit('keys', 'rotate', 'database', stack=found.stack)}`",
            )
        keys = ROTATED["database"]
    external = {
        "database": (found.database, "externalDatabasePassword"),
        "redis": (found.redis, "externalRedisPassword"),
        "vector-store": (found.vector_server, VECTOR_PASSWORD),
    }
    server, setting = external.get(name, (None, ""))
    if server is not None:
        raise KitError(
            f"{name}: the stack uses {server.address}, which is not its own, so the kit cannot change the password "
            "there; nothing was changed",
            f"let the owner of the server change it, then `{hints.assign(setting, stack=found.stack)}` and "
            f"`{hints.kit('up', stack=found.stack)}`",
        )
    if name == "agent" and not found.dify.has("agent-backend"):
        raise KitError(
            f"agent: Dify {found.release} has no agent backend; nothing was changed",
            "there is no such secret to rotate",
        )
    return Rotation(name=name, keys=keys, effect=_EFFECTS[name](found))


def incomplete(found: Settings, outputs: Mapping[str, Any]) -> list[str]:
    """Return the names whose rotation is in the settings, and not in the exports of the last deployment."""
    deployed = outputs.get(ROTATIONS) or {}
    return [name for name, number in found.secret_rotations.items() if number > int(deployed.get(name, 0))]


def begin(pulumi: Pulumi, name: str) -> Rotation:
    """Write new values and the number of the rotation, or continue one that is not complete; say what will happen.

    Raises KitError, and then nothing was changed.
    """
    files = pulumi.files
    found = settings.checked(files)
    rotation = of(name, found)
    outputs = pulumi.state().outputs if pulumi.created() else {}
    if not outputs:
        raise KitError(
            f"stack {files.stack} is not deployed: {name} reaches its servers while they run; nothing was changed",
            f"`{hints.kit('up', stack=files.stack)}` first",
        )
    number = found.secret_rotations.get(name, 0)
    if name in incomplete(found, outputs):
        say(f"an earlier rotation of {name} was not completed: continuing it, with the value that it made")
    else:
        changes = [Change(path=(key,), value=_new(key), secret=True) for key in rotation.keys]
        changing.apply(pulumi, [*changes, Change(path=(ROTATIONS, name), value=number + 1)])
    say(f"{name}: {rotation.effect}")
    return rotation


def _new(key: str) -> str:
    generate = SHAPES[key].generate
    if generate is None:
        raise ValueError(f"{key} is not generated")
    return generate()
