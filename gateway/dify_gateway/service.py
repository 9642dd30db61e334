"""The state of one worker: its configuration, Redis and external issuers; and how it follows changes."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dify_gateway import config, log, workers
from dify_gateway.gate_provider import Provider
from dify_gateway.gate_sessions import Gate
from dify_gateway.issuers import Fetch, Issuers
from dify_gateway.reading import FileError
from dify_gateway.state import State, UnavailableError

# A removed client is refused after at most this many seconds, plus the 4 s of nginx's cached introspection results.
POLL_SECONDS = 0.5
# The interval of checks of Redis's own settings.
ADVICE_SECONDS = 30
CURRENT = "current"

Mark = tuple[str, tuple[tuple[int, int, int], ...]]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A configuration and its connections. `gate` is None when console and web app have no gate."""

    configuration: config.Configuration
    state: State
    issuers: Issuers
    gate: Gate | None = None


class NotLoadedError(UnavailableError):
    """No valid configuration has been read yet."""


class Service:
    """Holds the loaded configuration; replaces it as a whole, and only with a validated one."""

    def __init__(
        self,
        directory: Path,
        *,
        connect: Callable[[config.Settings], State] = State,
        fetch: Fetch | None = None,
    ) -> None:
        self._directory = directory
        self._connect = connect
        self._fetch = fetch
        self._loaded: Loaded | None = None
        self._seen: Mark | None = None
        self._problem = "no configuration has been read yet"
        self._redis_problem = ""
        self._advice = ""
        self._advised_at = float("-inf")
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @property
    def loaded(self) -> Loaded:
        """The current configuration. A request reads it once. Raises NotLoadedError."""
        if self._loaded is None:
            raise NotLoadedError(self._problem)
        return self._loaded

    def follow(self) -> bool:
        """Read the configuration when it has changed; return whether a new one is served.

        An invalid configuration changes nothing, and is reported in the log and by /healthz.
        """
        with self._lock:
            mark = self._mark()
            if mark == self._seen:
                return False
            self._seen = mark
            try:
                self._take(config.load(Path(mark[0]), Path(mark[0]).name))
            except Exception as problem:  # noqa: BLE001  # any error leaves the current configuration in use
                self._problem = str(problem) if isinstance(problem, FileError) else type(problem).__name__
                kept = self._loaded.configuration.revision if self._loaded else ""
                log.write("configuration refused", level="error", problem=self._problem, still_serving=kept)
                self._report()
                return False
            self._problem = ""
            self._report()
            return True

    def start(self) -> None:
        """Read the configuration and keep following it, in threads that end with the process."""
        self.follow()
        for name, step, pause in (
            ("configuration", self.follow, POLL_SECONDS),
            ("issuers", self._renew_issuers, 1.0),
            ("memory", self._remember, 1.0),
        ):
            threading.Thread(target=self._repeat, args=(name, step, pause), name=name, daemon=True).start()

    def stop(self) -> None:
        """End the threads."""
        self._stopped.set()

    def problems(self) -> list[str]:
        """Return the problems of configuration, Redis and issuers; none of them stops the service."""
        found = [self._problem, self._advice, *(self._loaded.issuers.problems() if self._loaded else [])]
        if self._loaded and self._loaded.gate:
            found.append(self._loaded.gate.provider.problem())
        return [each for each in found if each]

    def _take(self, configuration: config.Configuration) -> None:
        before = self._loaded
        same_redis = before is not None and _redis_settings(before.configuration) == _redis_settings(
            configuration
        )
        state = before.state if before and same_redis else self._connect(configuration.settings)
        self._loaded = Loaded(
            configuration=configuration,
            state=state,
            issuers=Issuers(
                configuration.settings.issuers,
                configuration.directory,
                fetch=self._fetch,
                before=before.issuers if before else None,
            ),
            gate=self._gate(configuration, state, before.gate if before else None),
        )
        if before and not same_redis:
            before.state.close()
        log.write(
            "configuration",
            revision=configuration.revision,
            clients=len(configuration.clients),
            tenants=len(configuration.tenants),
            keys=[key.kid for key in configuration.keys],
            issuers=list(configuration.settings.issuers),
            gate=configuration.settings.gate.issuer if configuration.settings.gate else "",
        )

    def _gate(self, configuration: config.Configuration, state: State, before: Gate | None) -> Gate | None:
        """Return the gate; the provider's documents are kept while its settings are unchanged."""
        settings = configuration.settings.gate
        if settings is None:
            return None
        same = before is not None and before.settings == settings and not settings.ca_file
        provider = (
            before.provider if before and same else Provider(settings, configuration.directory, self._fetch)
        )
        return Gate(settings, provider, state)

    def _mark(self) -> Mark:
        """Return the current directory, and inode, time and size of its files."""
        link = self._directory / CURRENT
        # Without the link the directory itself is the revision: its files were mounted one by one.
        chosen = os.path.realpath(link if link.is_symlink() or link.exists() else self._directory)
        files = []
        for name in config.FILES:
            try:
                status = os.stat(f"{chosen}/{name}")  # noqa: PTH116  # twice a second, and before each refusal
                files.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                files.append((0, 0, 0))
        return chosen, tuple(files)

    def _report(self) -> None:
        workers.report(self._loaded.configuration.revision if self._loaded else "", self._problem)

    def _renew_issuers(self) -> None:
        if self._loaded is not None:
            self._loaded.issuers.renew_when_due()
            if self._loaded.gate:
                self._loaded.gate.provider.renew_when_due()

    def _remember(self) -> None:
        """Start the memory of Redis now rather than with the first token."""
        if self._loaded is not None:
            problem = ""
            try:
                self._loaded.state.wait_for_memory()
            except UnavailableError as unavailable:
                problem = str(unavailable)
            if problem != self._redis_problem:
                log.write("redis", level="error" if problem else "info", problem=problem or "solved")
            self._redis_problem = problem
            if time.monotonic() - self._advised_at > ADVICE_SECONDS:
                self._advised_at = time.monotonic()
                self._advice = self._loaded.state.advice()

    def _repeat(self, name: str, step: Callable[[], object], pause: float) -> None:
        while not self._stopped.is_set():
            try:
                step()
            except Exception as problem:  # noqa: BLE001  # the thread must survive any error
                log.crash(f"{name} thread", problem)
            self._stopped.wait(pause)


def _redis_settings(configuration: config.Configuration) -> tuple[object, ...]:
    settings = configuration.settings
    return settings.redis_url, settings.redis_prefix, settings.seal_key, settings.limits
