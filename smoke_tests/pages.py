"""Real pages in a real browser: which origin they have is chosen here, what they may read the browser decides.

The document of a page is handed to the browser instead of its server's, so the page has the origin that the
environment allows or refuses. Everything it then asks goes over the network to the edge.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import playwright.sync_api as playwright

from smoke_tests import sse
from smoke_tests.browsers import Browser, BrowserError
from smoke_tests.client import ANSWER_SECONDS, SHOWN, Patience, is_loopback
from smoke_tests.cors import Policy
from smoke_tests.masking import Redactor, Secret

# A browser is a dozen processes: seconds where the machine is idle.
START_SECONDS = 120
OPEN_SECONDS = 15
# The browser's reason for a refusal is told beside the answer, a moment earlier or later.
REASON_SECONDS = 3.0
# Chromium gives up every request when an interface of its machine comes or goes, as with each container that starts
# or stops on it. That says nothing about the environment: the call is made again, for at most this long.
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
NETWORK_SECONDS = 60.0
STRANGER_HOST = "stranger.example"
SCRIPT = Path(__file__).with_name("page.js")
# No icon: the browser would ask the origin's true server for one.
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

    A page loaded over https may not call plain http, except on this machine, whatever CORS says: an origin
    with the API's own scheme is taken first.
    """
    scheme = urlsplit(policy.url).scheme
    named = [origin for origin in policy.allowed if origin not in {"*", policy.url}]
    if "*" in policy.allowed:
        named.append(f"{scheme}://{STRANGER_HOST}")
    return min(named, key=lambda origin: urlsplit(origin).scheme != scheme, default="")


def refused_origin(policy: Policy) -> str:
    """Return an origin that may not; empty when every origin may."""
    stranger = f"{urlsplit(policy.url).scheme}://{STRANGER_HOST}"
    return "" if policy.answer_to(stranger) else stranger


@dataclass(frozen=True, kw_only=True)
class OnTheWire:
    """An answer that reached the browser, which need not be one that the page may read."""

    kind: str
    status: int
    request_id: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Seen:
    """What a script of the page got from a call: an answer, or `error`, with every known secret masked.

    `kind` is the response's type (`cors`, `opaque`); `headers` are those it may read, by lower-case name;
    `pieces` of the body and `events` carry the seconds after which they came, `stalled` is how long the page itself
    stood still meanwhile; `told` are the lines of the
    browser's console, `wire` the answers that came over the network, preflights included.
    """

    asked: str
    origin: str
    seconds: float
    stalled: float = 0.0
    error: str = ""
    status: int = 0
    kind: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[tuple[float, str], ...] = ()
    events: tuple[sse.Event, ...] = ()
    told: tuple[str, ...] = ()
    wire: tuple[OnTheWire, ...] = ()

    def __repr__(self) -> str:
        """Show the call as a developer sees it, the console included."""
        outcome = self.error or f"{self.status} {self.kind} {self.text[:SHOWN]!r}"
        return (
            f"<{self.asked} from {self.origin} -> {outcome} | console: {list(self.told)} | {list(self.wire)}>"
        )

    def values(self, name: str) -> list[str]:
        """Return the value of a header, as far as the page may read it; a browser joins lines."""
        return [self.headers[name.lower()]] if name.lower() in self.headers else []

    @property
    def text(self) -> str:
        """The body."""
        return "".join(piece for _, piece in self.pieces)

    @property
    def preflights(self) -> list[OnTheWire]:
        """Answers to the questions that the browser asked by itself before sending the request."""
        return [one for one in self.wire if one.kind == "Preflight"]

    @property
    def refusals(self) -> list[str]:
        """What the browser says about CORS."""
        return [line for line in self.told if "CORS policy" in line]


class Page:
    """A page of some origin, with nothing in its cache, its cookies and its memory of preflights.

    `tab` is the browser's own view of it.
    """

    def __init__(
        self,
        context: playwright.BrowserContext,
        origin: str,
        document: str,
        *,
        redact: Redactor,
        patience: Patience,
    ) -> None:
        self._redact, self._patience = redact, patience
        self.origin = origin
        self.tab = context.new_page()
        self._told: list[str] = []
        self._wire: list[OnTheWire] = []
        self.tab.on("console", lambda message: self._told.append(redact(message.text)))
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
        self.tab.goto(address, timeout=OPEN_SECONDS * 1000)
        # Necessary: while any route is set, Playwright answers the browser's preflights itself, with yes.
        self.tab.unroute_all()
        opened = self.tab.evaluate("location.origin")
        assert opened == self.origin, (
            f"the browser opened {opened} instead of {self.origin}: no page can have that origin"
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
        """Call `fetch` and read the body piece by piece; wait for the environment's limits as `listen` does."""
        return self._patiently("read", method, url, init)

    def listen(self, method: str, url: str, **init: Any) -> Seen:  # noqa: ANN401  # RequestInit of the fetch standard
        """Call `fetch` and read events as EventSource does. A 429 is repeated when it says so, within limits."""
        return self._patiently("listen", method, url, init)

    def once(self, method: str, url: str, **init: Any) -> Seen:  # noqa: ANN401  # RequestInit of the fetch standard
        """Call `fetch`, read the body piece by piece, and take whatever comes, a 429 too."""
        return self._call("read", method, url, init)

    def _patiently(self, how: Literal["read", "listen"], method: str, url: str, init: dict[str, Any]) -> Seen:
        return self._patience.repeat(lambda: self._call(how, method, url, init))

    @property
    def cut_off(self) -> bool:
        """Whether the browser gave up a request of the last call because interfaces of its machine changed."""
        return NETWORK_CHANGED in self._failed or any(NETWORK_CHANGED in line for line in self._told)

    def forget(self) -> None:
        """Begin anew with what was seen."""
        for seen in (self._told, self._wire, self._failed):
            seen.clear()

    def _call(self, how: Literal["read", "listen"], method: str, url: str, init: dict[str, Any]) -> Seen:
        until = time.monotonic() + NETWORK_SECONDS
        seen = self._call_once(how, method, url, init)
        while self.cut_off and time.monotonic() < until:
            seen = self._call_once(how, method, url, init)
        return seen

    def _call_once(self, how: Literal["read", "listen"], method: str, url: str, init: dict[str, Any]) -> Seen:
        self.forget()
        # The page itself gives up after `seconds`; `evaluate` would wait for ever.
        request = {"url": url, "init": {"method": method} | init, "seconds": ANSWER_SECONDS}
        found = self.tab.evaluate(f"request => window.{how}(request)", request)
        if "error" in found:
            self._await_reason()
        redact = self._redact
        return Seen(
            asked=redact(f"{method} {url}"),
            origin=self.origin,
            seconds=found["seconds"],
            stalled=found.get("stalled", 0.0),
            error=redact(found.get("error", "")),
            status=found.get("status", 0),
            kind=found.get("kind", ""),
            headers={name.lower(): redact(value) for name, value in found.get("headers", [])},
            pieces=tuple((at, redact(piece)) for at, piece in found.get("pieces", [])),
            events=tuple(
                sse.Event(name="message", data=redact(data), at=at) for at, data in found.get("events", [])
            ),
            told=tuple(self._told),
            wire=tuple(self._wire),
        )

    def _await_reason(self) -> None:
        deadline = time.monotonic() + REASON_SECONDS
        while not (self.cut_off or any("CORS policy" in line for line in self._told)) and (
            time.monotonic() < deadline
        ):
            self.tab.wait_for_timeout(20)


def visit(tab: playwright.Page, url: str) -> None:
    """Open an address; again when the browser gave up because interfaces of its machine changed."""
    until = time.monotonic() + NETWORK_SECONDS
    while True:
        try:
            tab.goto(url)
        except playwright.Error as problem:
            if NETWORK_CHANGED not in problem.message or time.monotonic() > until:
                raise
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
    # Certificates are the business of the other tests, which know authorities that the browser does not.
    any_certificate: bool

    @contextmanager
    def at(self, origin: str, document: str = DOCUMENT, *, permitted: bool = True) -> Iterator[Page]:
        """Open a page at an origin, in a profile of its own.

        The browser asks people whether a site may call this machine or network; `permitted` is their answer.
        """
        context = self.browser.new_context(ignore_https_errors=self.any_certificate)
        try:
            if permitted:
                context.grant_permissions(["local-network-access"])
            yield Page(context, origin, document, redact=self.redact, patience=self.patience)
        finally:
            context.close()


@contextmanager
def browsing(
    browser: Browser, policy: Policy, *, redact: Redactor, patience: Patience, verify: bool
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
        # Pages call the edge and nobody else; the true servers of their origins are not asked for anything.
        f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {host}",
        # Only https pages may be permitted to call a private address; CORS is the same for both.
        *([f"--unsafely-treat-insecure-origin-as-secure={','.join(plain)}"] if plain else []),
        # As httpx does it: a proxy of the environment is never asked for this machine.
        *(["--no-proxy-server"] if is_loopback(policy.url) else []),
    ]
    with playwright.sync_playwright() as driver:
        try:
            running = driver.chromium.launch(
                executable_path=browser.path,
                # Chromium refuses to make its sandbox when it runs as root.
                chromium_sandbox=os.geteuid() != 0,
                args=flags,
                timeout=START_SECONDS * 1000,
            )
        except playwright.Error as problem:
            said = [line.strip() for line in problem.message.splitlines() if line.strip()]
            raise BrowserError(
                f"{browser} does not start: {' | '.join(said[:6])[:1500]}. --browser PATH names another one, "
                "--browser none leaves these tests out"
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
