"""The data in Redis: revoked tokens, used assertions, failed attempts, sessions of the gate.

Without Redis every request is refused. Entries that grant access have a seal that binds them to their key and this
service, so write access to Redis is not enough to forge a session. Entries that deny access need no seal.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry

from dify_gateway.config import Settings

# nginx waits two seconds for an introspection result, and then answers 503 itself.
CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 0.8
# After consecutive failures the next calls fail immediately, so that a hanging Redis does not occupy every thread. A
# single failure may be due to a busy machine.
FAILURES_BEFORE_PAUSE = 2
PAUSE_SECONDS = 0.25
LONGEST_MEMORY_WAIT = 1.5
KEEPS_ALL = "noeviction"
LONGEST_PROBLEM = 160


class UnavailableError(Exception):
    """Redis or an external issuer did not answer, so a request can be neither accepted nor refused."""


class TooManyFailuresError(Exception):
    """An address, or a client at an address, had too many failures. `seconds` is the time to wait."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many failures, {seconds} s to wait")
        self.seconds = seconds


class State:
    """One worker's connection pool to Redis, and the data there.

    `memory_since` is the time (seconds of the epoch) since which Redis has kept its data. It is written when it is
    missing: after a loss of data, revocations of older tokens are unknown, so all older tokens count as revoked.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connect: Callable[[str], redis.ConnectionPool] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        pool = (connect or _pool)(settings.redis_url)
        self._redis: redis.Redis = redis.Redis(connection_pool=pool)
        self._prefix = settings.redis_prefix
        self._seal_key = settings.seal_key
        self._clock = clock
        self._limits = settings.limits
        self._paused_until = 0.0
        self._failures = 0
        self._storage_pool = pool
        self._limiter: FixedWindowRateLimiter | None = None

    def is_revoked(self, jti: str, issued_at: int) -> bool:
        """Return whether a token was revoked, or may have been before a loss of data. One round trip."""
        with self._reaching():
            since, revoked = self._commands("mget", [self._key("memory-since"), self._key("revoked", jti)])
            return revoked is not None or issued_at < self._memory_since(since)

    def revoke(self, jti: str, issued_at: int, expires_at: int) -> None:
        """Store a token as revoked until it expires (seconds of the epoch). Raises UnavailableError."""
        with self._reaching():
            self._memory_since(self._commands("get", self._key("memory-since")))
            self._commands("set", self._key("revoked", jti), str(issued_at), exat=expires_at + 1)

    def use_once(self, client: str, jti: str, expires_at: int) -> bool:
        """Store an id as used; return false when it was used before. Raises UnavailableError."""
        with self._reaching():
            return bool(
                self._commands("set", self._key("assertion", client, jti), "1", nx=True, exat=expires_at)
            )

    def check_failures(self, client: str, address: str) -> None:
        """Raise TooManyFailuresError when the client at this address, or the address, had too many failures.

        Failures count per address and per client *at that address*: a client cannot be locked out from another address.
        """
        with self._reaching():
            waits = [
                self._wait(item, *key)
                for item, key in self._failure_keys(client, address)
                if not self._rate_limiter().test(item, *key)
            ]
        if waits:
            raise TooManyFailuresError(max(waits))

    def note_failure(self, client: str, address: str) -> None:
        """Count a failed authentication. Raises UnavailableError."""
        with self._reaching():
            for item, key in self._failure_keys(client, address):
                self._rate_limiter().hit(item, *key)

    def keep(self, *name: str, value: str, seconds: int) -> None:
        """Store a sealed text under a name for some seconds. Raises UnavailableError."""
        with self._reaching():
            key = self._key(*name)
            self._commands("set", key, self._sealed(key, value), ex=seconds)

    def find(self, *name: str) -> str | None:
        """Return the text under a name; None without one, or when its seal is invalid."""
        with self._reaching():
            key = self._key(*name)
            return self._opened(key, self._commands("get", key))

    def take(self, *name: str) -> str | None:
        """Return and delete the text under a name, so that it is read only once; None as for `find`."""
        with self._reaching():
            key = self._key(*name)
            return self._opened(key, self._commands("getdel", key))

    def wait_for_memory(self) -> None:
        """Make sure that a token issued after this call can be revoked: `memory_since` is set and has passed.

        Takes up to a second after a loss of data. Raises UnavailableError when Redis does not answer.
        """
        with self._reaching():
            missing = self._memory_since(self._commands("get", self._key("memory-since"))) - self._clock()
        if missing > LONGEST_MEMORY_WAIT:
            raise UnavailableError(
                "the memory of Redis starts in the future: synchronise the clocks of the machines"
            )
        if missing > 0:
            time.sleep(missing)

    def advice(self) -> str:
        """Return a warning when Redis may evict its data; empty when it may not, or does not answer."""
        try:
            with self._reaching():
                memory = self._commands("info", "memory")
        except UnavailableError:
            return ""
        policy = memory.get("maxmemory_policy", KEEPS_ALL)
        if not int(memory.get("maxmemory", 0)) or policy == KEEPS_ALL:
            return ""
        return f"Redis may evict revoked tokens (maxmemory-policy {policy}): set it to {KEEPS_ALL}"

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
        self._storage_pool.disconnect()

    def _failure_keys(self, client: str, address: str) -> list[tuple[RateLimitItem, tuple[str, ...]]]:
        of_address = self._limit(self._limits.failures_per_address)
        of_client = self._limit(self._limits.failures_per_client)
        keys: list[tuple[RateLimitItem, tuple[str, ...]]] = [(of_address, ("address", address))]
        return [*keys, (of_client, ("client", client, address))] if client else keys

    def _limit(self, amount: int) -> RateLimitItem:
        return RateLimitItemPerSecond(amount, self._limits.window_seconds, f"{self._prefix}failures")

    def _wait(self, item: RateLimitItem, *key: str) -> int:
        reset = self._rate_limiter().get_window_stats(item, *key).reset_time
        return max(1, min(item.get_expiry(), round(reset - time.time() + 0.5)))

    def _rate_limiter(self) -> FixedWindowRateLimiter:
        # Created on first use: its constructor loads scripts into Redis.
        if self._limiter is None:
            self._limiter = FixedWindowRateLimiter(
                RedisStorage("redis://", connection_pool=self._storage_pool)
            )
        return self._limiter

    def _memory_since(self, stored: Any) -> int:  # noqa: ANN401  # any value of Redis
        key = self._key("memory-since")
        since = self._opened(key, stored)
        if since is not None:
            return int(since)
        # A revocation of this second may be lost, hence the next one. An entry with an invalid seal is overwritten.
        now = int(self._clock()) + 1
        self._commands("set", key, self._sealed(key, str(now)), nx=stored is None)
        since = self._opened(key, self._commands("get", key))
        return now if since is None else int(since)

    def _sealed(self, key: str, value: str) -> str:
        return sealed(self._seal_key, key, value)

    def _opened(self, key: str, stored: Any) -> str | None:  # noqa: ANN401  # any value of Redis
        text = _text(stored) or ""
        _, dot, value = text.partition(".")
        ours = dot and hmac.compare_digest(text.encode(), self._sealed(key, value).encode())
        return value if ours else None

    def _commands(self, name: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # redis types its answers as Any
        return getattr(self._redis, name)(*args, **options)

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        if time.monotonic() < self._paused_until:
            raise UnavailableError("Redis did not answer recent requests")
        try:
            yield
            self._failures = 0
        except (redis.RedisError, OSError, ValueError) as problem:
            self._failures += 1
            if self._failures >= FAILURES_BEFORE_PAUSE:
                self._paused_until = time.monotonic() + PAUSE_SECONDS
            # Messages of Redis quote no value, and may be long.
            raise UnavailableError(f"Redis: {type(problem).__name__}: {problem}"[:LONGEST_PROBLEM]) from None


def sealed(seal_key: str, key: str, value: str) -> str:
    """Return a value with the seal that binds it to its key in Redis."""
    seal = hmac.new(seal_key.encode(), f"{key}\0{value}".encode(), hashlib.sha256)
    return f"{seal.hexdigest()}.{value}"


def _text(stored: Any) -> str | None:  # noqa: ANN401  # any value of Redis
    return stored.decode("utf-8", errors="replace") if isinstance(stored, bytes) else None


def _pool(url: str) -> redis.ConnectionPool:
    return redis.ConnectionPool.from_url(
        url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        # A connection that a restart of Redis closed is replaced once, immediately.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        client_name="dify-gateway",
    )
