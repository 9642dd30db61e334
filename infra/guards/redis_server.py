"""Refuses an external Redis that Dify could not work with, before anything is created.

`dify:redis` is connected to as the stack's services do it: with the user, by TLS, with the same roots. What is written
is one key in each database, which is removed, and expires after seconds.
"""

import secrets
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from infra import hints
from infra.guards.findings import DataView, Refusal
from infra.guards.servers import TIMEOUT_SECONDS, address_of, first_line, roots_file, tls_refusal, unreachable
from infra.settings.external_data import REDIS_PASSWORD, Redis
from infra.settings.stack import Settings

if TYPE_CHECKING:
    import redis

# The oldest one with the protocol that api speaks (RESP3).
LEAST_REDIS = 6
_KEY_SECONDS = 10


def refusals(settings: Settings, view: DataView) -> list[Refusal]:
    """Return why Dify cannot use the Redis of `dify:redis`; nothing without one, or with an engine elsewhere."""
    server = settings.redis
    if server is None or not server.known_password.text or not view.local():
        return []
    problem = _refusal(settings.stack, server)
    return [problem] if problem else []


def _refusal(stack: str, server: Redis) -> Refusal | None:  # noqa: PLR0911  # one rule after another
    import redis  # noqa: PLC0415  # for stacks with an external Redis alone

    try:
        with roots_file(server, wanted=server.tls) as roots:
            return _rules(server, lambda number: _client(server, number, roots))
    except redis.AuthenticationError as problem:
        return Refusal(
            problem=f"dify:redis.user: {server.user or 'default'}: {server.address} rejects it with this password: "
            f"{first_line(problem)}",
            fix=f"correct the user, or `{hints.assign(REDIS_PASSWORD, stack=stack)}`",
        )
    except redis.exceptions.NoPermissionError as problem:
        return _no_permission(server, first_line(problem))
    except ssl.SSLError as problem:
        return tls_refusal("redis", server, first_line(problem))
    except (redis.ConnectionError, redis.TimeoutError, OSError) as problem:
        said = first_line(problem)
        if (
            isinstance(problem.__cause__, ssl.SSLError)
            or "certificate" in said.lower()
            or "ssl" in said.lower()
        ):
            return tls_refusal("redis", server, said)
        return unreachable("redis", server, said)
    except redis.RedisError as problem:
        return Refusal(
            problem=f"dify:redis.host: {server.host}: the server rejects what Dify does: {first_line(problem)}",
            fix="use a Redis server that admits it",
        )


def _rules(server: Redis, client: "Callable[[int], redis.Redis]") -> Refusal | None:
    import redis  # noqa: PLC0415

    numbers = {
        "database": server.database,
        "celeryDatabase": server.celery_database,
        "agentDatabase": server.agent_database,
    }
    for key, number in numbers.items():
        with client(number) as connection:
            try:
                connection.ping()
            except redis.exceptions.NoPermissionError:
                raise
            except redis.ResponseError as problem:
                return Refusal(
                    problem=f"dify:redis.{key}: {number}: {server.address} has no such database: {first_line(problem)}",
                    fix="use a number that the server has, or raise `databases` there (a cluster has one alone)",
                )
            if key == "database" and (wrong := _facts(server, connection)):
                return wrong
            _try_commands(connection)
    return None


def _facts(server: Redis, connection: "redis.Redis") -> Refusal | None:
    facts = cast("dict[str, Any]", connection.info())
    version = str(facts.get("redis_version", "0"))
    rules = (
        (
            int(version.partition(".")[0]) < LEAST_REDIS,
            f"is Redis {version}",
            f"use Redis {LEAST_REDIS} or newer",
        ),
        (facts.get("role") == "slave", "is a replica, which nothing can be written to", "name the primary"),
        (
            bool(facts.get("cluster_enabled")),
            "is a Redis Cluster, which the celery of Dify cannot use",
            "use a Redis without cluster mode",
        ),
    )
    return next(
        (
            Refusal(problem=f"dify:redis.host: {server.host} {words}", fix=fix)
            for broken, words, fix in rules
            if broken
        ),
        None,
    )


def _try_commands(connection: "redis.Redis") -> None:
    """Do a little of everything that Dify, Celery and the agent backend do. Raises RedisError."""
    key = f"dify-kit-check-{secrets.token_hex(8)}"
    try:
        connection.set(key, "1", ex=_KEY_SECONDS, nx=True)
        connection.get(key)
        connection.delete(key)
        connection.lpush(key, "1")
        connection.expire(key, _KEY_SECONDS)
        connection.brpop([key], timeout=1)
        connection.xadd(key, {"checked": "1"}, maxlen=1)
        connection.expire(key, _KEY_SECONDS)
        # Locks are released by a script.
        connection.eval("return redis.call('del', KEYS[1])", 1, key)
        connection.publish(key, "1")
        with connection.pubsub() as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(key)
            subscription.get_message(timeout=1)
    finally:
        connection.delete(key)


def _no_permission(server: Redis, said: str) -> Refusal:
    return Refusal(
        problem=f"dify:redis.user: {server.user or 'default'}: its ACL at {server.address} denies what Dify does: "
        f"{said}",
        fix=f"at the server: `ACL SETUSER {server.user or 'default'} ~* &* +@all -@admin -@dangerous +info +keys`",
    )


def _client(server: Redis, number: int, roots: str) -> "redis.Redis":
    """Return a client of one database. It compares the certificate with the name, and connects to the address."""
    import redis  # noqa: PLC0415

    host = address_of(server) or server.host

    class ByAddress(redis.SSLConnection):
        """A TLS connection whose host is the name in the certificate."""

        def _connect(self) -> socket.socket:
            plain = socket.create_connection((host, server.port), TIMEOUT_SECONDS)
            plain.settimeout(TIMEOUT_SECONDS)
            secure: socket.socket = self._wrap_socket_with_ssl(plain)  # type: ignore[no-untyped-call]
            return secure

    options: dict[str, Any] = {
        "host": server.server_name if server.tls else server.host,
        "port": server.port,
        "db": number,
        "username": server.user or None,
        "password": server.known_password.text,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "socket_timeout": TIMEOUT_SECONDS,
    }
    if server.tls:
        options |= {"connection_class": ByAddress, "ssl_cert_reqs": "required", "ssl_ca_certs": roots}
    # The pool, and with it the connection, ends with the client.
    client: redis.Redis = redis.Redis.from_pool(redis.ConnectionPool(**options))
    return client
