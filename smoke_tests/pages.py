"""Pages in a real browser: their origin is chosen here, what they may read is decided by the browser.

The browser gets the document of a page from here instead of from its server, so the page has the origin that the
environment allows or refuses. Every request of the page goes over the network to the edge.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import playwright.sync_api as playwright

from dify_kit.chromium import Browser, BrowserError
from smoke_tests import sse
from smoke_tests.client import ANSWER_SECONDS, SHOWN, Patience, is_loopback
from smoke_tests.cors import Policy
from smoke_tests.masking import Redactor, Secret
from smoke_tests.resolve import Resolved, browser_rules
from smoke_tests.timing import Stall

# A browser has a dozen processes and starts in seconds on an idle machine.
START_SECONDS = 120
OPEN_SECONDS = 15
# The browser reports the reason for a refusal separately, shortly before or after the answer.
REASON_SECONDS = 3.0
# Chromium aborts every request when a network interface of its machine changes, as with each container that starts
# or stops. This is no fault of the environment: the call is repeated for at most this many seconds.
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
NETWORK_SECONDS = 60.0
# Chromium checks whether a page may call this machine; under load it now and then denies a permission that was granted.
ACCESS_DENIED = "was denied for this request to access the"
AGAIN_SECONDS = 0.2
UNRELATED_HOST = "unrelated.example"
SCRIPT = Path(__file__).with_name("page.js")
# An empty icon: the browser would request one from the origin's real server.
DOCUMENT = (
    '<!doctype html><title>Smoke test</title><link rel="icon" href="data:,">'
    f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>"
)
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def allowed_origin(policy: Policy) -> str:
    """Return an origin that may call this API from another one; empty when there is none.

    Regardless of CORS, a page loaded over https may not call plain http, except on this machine: an origin
    with the API's own scheme is preferred.
    """
    scheme = urlsplit(policy.url).scheme
    named = [origin for origin in policy.allowed if origin not in {"*", policy.url}]
    if "*" in policy.allowed:
        named.append(f"{scheme}://{UNRELATED_HOST}")
    return min(named, key=lambda origin: urlsplit(origin).scheme != scheme, default="")


def refused_origin(policy: Policy) -> str:
    """Return an origin that may not call this API; empty when every origin may."""
    unrelated = f"{urlsplit(policy.url).scheme}://{UNRELATED_HOST}"
    return "" if policy.answer_to(unrelated) else unrelated


@dataclass(frozen=True, kw_only=True)
class OnTheWire:
    """An answer that reached the browser; the page may not be allowed to read it."""

    kind: str
    status: int
    request_id: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Seen:
    """The result of a call of a page's script: an answer or `error`, with every known secret masked.

    `kind` is the response's type (`cors`, `opaque`); `headers` are those it may read, by lower-case name;
    `pieces` of the body and `events` carry their time of arrival in seconds after the call, `stalls` are the times
    between which the page was suspended meanwhile, likewise; `console` are the lines of the browser's console, `wire`
    the answers that arrived over the network, preflights included.
    """

    asked: str
    origin: str
    seconds: float
    stalls: tuple[Stall, ...] = ()
    error: str = ""
    status: int = 0
    kind: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[tuple[float, str], ...] = ()
    events: tuple[sse.Event, ...] = ()
    console: tuple[str, ...] = ()
    wire: tuple[OnTheWire, ...] = ()

    def __repr__(self) -> str:
        """Return the call, its result, the console's lines and the answers on the network."""
        outcome = self.error or f"{self.status} {self.kind} {self.text[:SHOWN]!r}"
        return f"<{self.asked} from {self.origin} -> {outcome} | console: {list(self.console)} | {list(self.wire)}>"

    def values(self, name: str) -> list[str]:
        """Return the values of a header that the page may read; a browser joins several lines into one."""
        return [self.headers[name.lower()]] if name.lower() in self.headers else []

    @property
    def text(self) -> str:
        """The body."""
        return "".join(piece for _, piece in self.pieces)

    @property
    def preflights(self) -> list[OnTheWire]:
        """Answers to the preflights that the browser sent before the request."""
        return [one for one in self.wire if one.kind == "Preflight"]

    @property
    def refusals(self) -> list[str]:
        """The browser's console messages about CORS."""
        return [line for line in self.console if "CORS policy" in line]


def cut_off(failed: Iterable[str], console: Iterable[str], *, permitted: bool) -> bool:
    """Whether Chromium's failures and console lines of a call have a reason that is no fault of the environment.

    `permitted` is whether the page was granted access to this machine.
    """
    lines = tuple(console)
    if NETWORK_CHANGED in failed or any(NETWORK_CHANGED in line for line in lines):
        return True
    return permitted and any(ACCESS_DENIED in line for line in lines)


class Page:
    """A page of an origin with empty cache, cookies and preflight cache.

    `tab` is Playwright's page.
    """

    def __init__(
        self,
        context: playwright.BrowserContext,
        origin: str,
        document: str,
        *,
        redact: Redactor,
        patience: Patience,
        permitted: bool = True,
    ) -> None:
        self._redact, self._patience = redact, patience
        self._permitted = permitted
        self.origin = origin
        self.tab = context.new_page()
        self._console: list[str] = []
        self._wire: list[OnTheWire] = []
        self.tab.on("console", lambda message: self._console.append(redact(message.text)))
        # Playwright's own events leave preflights out.
        self._network = context.new_cdp_session(self.tab)
        self._network.on("Network.responseReceived", self._received)
        self._failed: list[str] = []
        self._network.on("Network.loadingFailed", lambda event: self._failed.append(event["errorText"]))
        self._network.send("Network.enable")
        self._open(document)

    def _open(self, document: str) -> None:
        address = f"{self.origin}/"
        self.tab.route(address, lambda route: route.fulfill(content_type="text/html", body=document))
        visit(self.tab, address, seconds=OPEN_SECONDS)
        # Required: while any route is set, Playwright answers the browser's preflights itself and allows everything.
        self.tab.unroute_all()
        opened = self.tab.evaluate("location.origin")
        assert opened == self.origin, (
            f"the browser opened {opened} instead of {self.origin}: not an origin that a page can have"
        )
        self._wire.clear()

    def _received(self, event: dict[str, Any]) -> None:
        response = event["response"]
        headers = {name.lower(): value for name, value in response["headers"].items()}
        self._wire.append(
            OnTheWire(
                kind=event["type"],
                status=response["status"],
                request_id=headers.get("x-request-id", ""),
            )
        )

    def read(self, method: str, url: str, **init: Any) -> Seen:  # noqa: ANN401  # RequestInit of the fetch standard
        """Call `fetch` and read the body piece by piece; repeat after a 429 as `listen` does."""
        return self._patiently("read", method, url, init)

    def listen(self, method: str, url: str, **init: Any) -> Seen:  # noqa: ANN401  # RequestInit of the fetch standard
        """Call `fetch` and read events as EventSource does. After a 429, wait for Retry-After and repeat."""
        return self._patiently("listen", method, url, init)

    def once(self, method: str, url: str, **init: Any) -> Seen:  # noqa: ANN401  # RequestInit of the fetch standard
        """Call `fetch` once and read the body piece by piece; any answer is returned, also a 429."""
        return self._call("read", method, url, init)

    def _patiently(self, how: Literal["read", "listen"], method: str, url: str, init: dict[str, Any]) -> Seen:
        return self._patience.repeat(lambda: self._call(how, method, url, init))

    @property
    def cut_off(self) -> bool:
        """Whether the browser stopped a request of the last call for a reason of its machine.

        A network interface changed, or a permission that the page has was not found yet.
        """
        return cut_off(self._failed, self._console, permitted=self._permitted)

    def forget(self) -> None:
        """Clear the console lines, answers and failures of the last call."""
        for seen in (self._console, self._wire, self._failed):
            seen.clear()

    def _call(self, how: Literal["read", "listen"], method: str, url: str, init: dict[str, Any]) -> Seen:
        until = time.monotonic() + NETWORK_SECONDS
        seen = self._call_once(how, method, url, init)
        while self.cut_off and time.monotonic() < until:
            self.tab.wait_for_timeout(AGAIN_SECONDS * 1000)
            seen = self._call_once(how, method, url, init)
        return seen

    def _call_once(self, how: Literal["read", "listen"], method: str, url: str, init: dict[str, Any]) -> Seen:
        self.forget()
        # The page's script times out after `seconds`; `evaluate` has no timeout.
        request = {"url": url, "init": {"method": method} | init, "seconds": ANSWER_SECONDS}
        found = self.tab.evaluate(f"request => window.{how}(request)", request)
        if "error" in found:
            self._await_reason()
        redact = self._redact
        return Seen(
            asked=redact(f"{method} {url}"),
            origin=self.origin,
            seconds=found["seconds"],
            stalls=tuple((start, end) for start, end in found.get("stalls", [])),
            error=redact(found.get("error", "")),
            status=found.get("status", 0),
            kind=found.get("kind", ""),
            headers={name.lower(): redact(value) for name, value in found.get("headers", [])},
            pieces=tuple((at, redact(piece)) for at, piece in found.get("pieces", [])),
            events=tuple(
                sse.Event(name="message", data=redact(data), at=at) for at, data in found.get("events", [])
            ),
            console=tuple(self._console),
            wire=tuple(self._wire),
        )

    def _await_reason(self) -> None:
        deadline = time.monotonic() + REASON_SECONDS
        while not (self.cut_off or any("CORS policy" in line for line in self._console)) and (
            time.monotonic() < deadline
        ):
            self.tab.wait_for_timeout(20)


def visit(tab: playwright.Page, url: str, *, seconds: float = 30.0) -> None:
    """Open an address, in `seconds` at most; repeat when the browser aborts because a network interface changed."""
    until = time.monotonic() + NETWORK_SECONDS
    while True:
        try:
            tab.goto(url, timeout=seconds * 1000)
        except playwright.Error as problem:
            if NETWORK_CHANGED not in problem.message or time.monotonic() > until:
                raise
            tab.wait_for_timeout(AGAIN_SECONDS * 1000)
        else:
            return


def bearer(key: str | Secret) -> dict[str, str]:
    """Return the header that carries an app's key."""
    return {"Authorization": f"Bearer {key.reveal() if isinstance(key, Secret) else key}"}


@dataclass(frozen=True, kw_only=True)
class Pages:
    """A running browser that opens pages."""

    browser: playwright.Browser
    redact: Redactor
    patience: Patience
    # Other tests verify certificates; the browser does not have the authorities they are given.
    any_certificate: bool

    @contextmanager
    def at(self, origin: str, document: str = DOCUMENT, *, permitted: bool = True) -> Iterator[Page]:
        """Open a page at an origin, in a profile of its own.

        The browser prompts whether a site may call this machine or network; `permitted` is the answer.
        """
        context = self.browser.new_context(ignore_https_errors=self.any_certificate)
        try:
            if permitted:
                context.grant_permissions(["local-network-access"])
            yield Page(
                context, origin, document, redact=self.redact, patience=self.patience, permitted=permitted
            )
        finally:
            context.close()


@contextmanager
def browsing(
    browser: Browser,
    policy: Policy,
    *,
    redact: Redactor,
    patience: Patience,
    verify: bool,
    resolve: Resolved | None = None,
) -> Iterator[Pages]:
    """Start the browser for pages that call this API. Raises BrowserError when it does not start."""
    host = urlsplit(policy.url).hostname or ""
    plain = [
        origin
        for origin in (allowed_origin(policy), refused_origin(policy))
        if urlsplit(origin).scheme == "http"
    ]
    flags = [
        *FLAGS,
        # Pages call the edge only; the real servers of their origins receive no request.
        f"--host-resolver-rules={browser_rules(resolve or {}, host)}",
        # Only https pages can be permitted to call a private address; CORS is the same for both schemes.
        *([f"--unsafely-treat-insecure-origin-as-secure={','.join(plain)}"] if plain else []),
        # As in `Client`: a proxy of the environment is never used for this machine.
        *(["--no-proxy-server"] if resolve or is_loopback(policy.url) else []),
    ]
    with playwright.sync_playwright() as driver:
        try:
            running = driver.chromium.launch(
                executable_path=browser.path,
                # Chromium cannot create its sandbox as root.
                chromium_sandbox=os.geteuid() != 0,
                args=flags,
                timeout=START_SECONDS * 1000,
            )
        except playwright.Error as problem:
            said = [line.strip() for line in problem.message.splitlines() if line.strip()]
            raise BrowserError(
                f"{browser} does not start: {' | '.join(said[:6])[:1500]}. Name another one with --browser PATH; "
                "--browser none deselects these tests"
            ) from None
        try:
            yield Pages(
                browser=running,
                redact=redact,
                patience=patience,
                any_certificate=not verify or bool(os.environ.get("SSL_CERT_FILE")),
            )
        finally:
            running.close()
