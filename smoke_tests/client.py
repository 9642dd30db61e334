"""An HTTP client for the environment: every wait is bounded, rate limits are honoured, keys are never shown."""

import email.utils
import http.client
import ipaddress
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx
import tenacity

from smoke_tests.masking import Redactor, Secret

CONNECT_SECONDS = 5.0
# Longer than the 10 s between Dify's keep-alives in a stream.
READ_SECONDS = 20.0
ANSWER_SECONDS = 60.0
LARGEST_ANSWER = 4 * 1024 * 1024
TOO_MANY_REQUESTS = 429
SHORTEST_WAIT = 0.05
SHOWN = 300


class VisitError(AssertionError):
    """The environment gave no valid HTTP answer; the message names the request and what was received."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer:
    """An answer, with every known secret masked.

    `headers` are (lower-case name, value) in the order received; `started` is the time of sending by
    time.monotonic(), and `seconds` counts from it to the last byte; `arrivals` are the pieces of the body with their
    seconds after `started`; `repeats_key` says whether the answer contained a key before masking.
    """

    asked: str
    status: int
    headers: tuple[tuple[str, str], ...]
    text: str
    seconds: float
    started: float = 0.0
    repeats_key: bool = False
    arrivals: tuple[tuple[float, bytes], ...] = field(default=())

    def __repr__(self) -> str:
        """Show the exchange in one line."""
        traced = [f"{name}: {value}" for name, value in self.headers if _traced_headers(name)]
        return f"<{self.asked} -> {self.status} | {' | '.join(traced)} | {self.text[:SHOWN]!r}>"

    def values(self, name: str) -> list[str]:
        """Return the values of a header, one for each line of it."""
        return [value for key, value in self.headers if key == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the value of a header; None without it. Raises VisitError when it occurs more than once."""
        values = self.values(name)
        if len(values) > 1:
            raise VisitError(f"header {name} occurs {len(values)} times, once expected: {self!r}")
        return values[0] if values else None

    def json(self) -> Any:  # noqa: ANN401  # any JSON value
        """Return the body as JSON. Raises VisitError when it is not JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            raise VisitError(f"the body is not JSON: {self!r}") from None


def _traced_headers(name: str) -> bool:
    return name.startswith("access-control-") or name in {
        "content-type",
        "www-authenticate",
        "vary",
        "retry-after",
        "x-request-id",
        "location",
    }


class Limited(Protocol):
    """What `Patience` reads of an answer."""

    @property
    def status(self) -> int:
        """The status code."""

    def values(self, name: str) -> list[str]:
        """Return the values of a header."""


_Answer = TypeVar("_Answer", bound=Limited)


def retry_after(answer: Limited) -> float:
    """Return the seconds of Retry-After, given as a number or a date; 1 when it is missing or malformed."""
    value = (answer.values("retry-after") or [""])[-1].strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 1.0


@dataclass(kw_only=True)
class Patience:
    """The time that this run may still wait for rate limits, in seconds over all requests."""

    seconds: float
    waited: float = 0.0

    def repeat(self, send: Callable[[], _Answer]) -> _Answer:
        """Send a request; after a 429, wait for Retry-After and repeat it. Raises VisitError when no time is left."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda answer: answer.status == TOO_MANY_REQUESTS),
            wait=self._asked,
            stop=self._exhausted,
            sleep=self._sleep,
            retry_error_callback=self._give_up,
        )
        answer: _Answer = retrying(send)
        return answer

    def _asked(self, state: tenacity.RetryCallState) -> float:
        """Return the Retry-After of the last answer in seconds."""
        assert state.outcome is not None
        return max(SHORTEST_WAIT, retry_after(state.outcome.result()))

    def _exhausted(self, state: tenacity.RetryCallState) -> bool:
        """Return whether the required wait exceeds what is left."""
        return self.waited + self._asked(state) > self.seconds

    def _sleep(self, seconds: float) -> None:
        """Wait, and add the seconds to `waited`."""
        self.waited += seconds
        time.sleep(seconds)

    def _give_up(self, state: tenacity.RetryCallState) -> NoReturn:
        assert state.outcome is not None
        answer: Limited = state.outcome.result()
        raise VisitError(
            f"the rate limits of this environment are exhausted: {answer!r} requires another "
            f"{retry_after(answer):.0f} s after {self.waited:.0f} s of waiting in this run. "
            "Run the tests while there is less traffic, or allow longer waits with --patience SECONDS"
        )


class Client:
    """A client with an app's key, or without."""

    def __init__(
        self,
        *,
        key: Secret | None,
        redact: Redactor,
        patience: Patience,
        direct: bool,
        verify: ssl.SSLContext | bool,
    ) -> None:
        self._key = key
        self._redact = redact
        self._patience = patience
        self._verify = verify
        self._http = httpx.Client(
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            headers={"User-Agent": "dify-kit-smoke-tests", "Accept-Encoding": "identity"},
            # A proxy of the environment variables is not used for this machine, nor for an address that was given.
            trust_env=not direct,
            verify=verify,
        )

    def __repr__(self) -> str:
        """Return a text without the key."""
        return "<Client>"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(
        self,
        method: str,
        url: str,
        *,
        key: bool = False,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """Send a request; after a 429, wait for Retry-After and repeat it. Raises VisitError when no time is left.

        `key` sends the app's key; `body` goes as JSON, `form` as a form; `seconds` bounds one whole answer.
        """
        return self._patience.repeat(
            lambda: self.once(method, url, key=key, headers=headers, body=body, form=form, seconds=seconds)
        )

    def once(
        self,
        method: str,
        url: str,
        *,
        key: bool = False,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """Send a request once and return any answer, also a 429. Raises VisitError without a valid answer."""
        sent = dict(headers or {})
        if key:
            if self._key is None:
                raise VisitError("no app key is configured: give --api-key-file")
            sent["Authorization"] = f"Bearer {self._key.reveal()}"
        asked = self._redact(f"{method} {url}")
        started = time.monotonic()
        with (
            _explained(asked),
            self._http.stream(method, url, headers=sent, json=body, data=form) as response,
        ):
            arrivals = tuple(self._arrivals(response, asked, started, seconds))
            headers_received = [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw
            ]
            status = response.status_code
        return self._answer(asked, status, headers_received, arrivals, started)

    def announce(self, url: str, *, size: int, origin: str = "") -> Answer:
        """POST the headers of a body of `size` bytes without the body; return the status, headers and text.

        The edge decides by Content-Length. The standard library is used because httpx sends complete requests only.
        """
        asked, parts, started = f"POST {url} of {size} bytes", urlsplit(url), time.monotonic()
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        connection = (
            http.client.HTTPSConnection(parts.netloc, timeout=CONNECT_SECONDS, context=self._tls())
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.netloc, timeout=CONNECT_SECONDS)
        )
        try:
            connection.putrequest("POST", parts.path)
            for name, value in (headers | ({"Origin": origin} if origin else {})).items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            body = response.read(LARGEST_ANSWER)
        except TimeoutError:
            raise VisitError(
                f"{asked}: the edge waits for the body instead of refusing it by its Content-Length"
            ) from None
        except (OSError, http.client.HTTPException) as problem:
            raise VisitError(f"{asked}: {type(problem).__name__}: {problem}") from None
        finally:
            connection.close()
        arrivals = ((time.monotonic() - started, body),)
        return self._answer(asked, response.status, response.getheaders(), arrivals, started)

    def _tls(self) -> ssl.SSLContext:
        if isinstance(self._verify, ssl.SSLContext):
            return self._verify
        context = ssl.create_default_context()
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _answer(
        self,
        asked: str,
        status: int,
        headers: list[tuple[str, str]],
        arrivals: tuple[tuple[float, bytes], ...],
        started: float,
    ) -> Answer:
        text = b"".join(chunk for _, chunk in arrivals).decode("utf-8", errors="replace")
        return Answer(
            asked=asked,
            status=status,
            headers=tuple((name.lower(), self._redact(value)) for name, value in headers),
            text=self._redact(text),
            seconds=time.monotonic() - started,
            started=started,
            repeats_key=any(self._redact.finds(one) for one in (text, *(value for _, value in headers))),
            arrivals=arrivals,
        )

    def _arrivals(
        self, response: httpx.Response, asked: str, started: float, seconds: float
    ) -> Iterator[tuple[float, bytes]]:
        size = 0
        for chunk in response.iter_raw():
            now = time.monotonic()
            size += len(chunk)
            yield now - started, chunk
            if size > LARGEST_ANSWER:
                raise VisitError(f"{asked}: the answer exceeds {LARGEST_ANSWER} bytes")
            if now > started + seconds:
                last = self._redact(chunk.decode("utf-8", errors="replace"))[-SHOWN:]
                raise VisitError(
                    f"{asked}: the answer did not end within {seconds:.0f} s; received {size} bytes, the last {last!r}"
                )


@contextmanager
def _explained(asked: str) -> Iterator[None]:
    """Turn a failed exchange into a message; the traceback of the HTTP library adds nothing."""
    try:
        yield
    except httpx.TimeoutException as problem:
        raise VisitError(
            f"{asked}: {type(problem).__name__}: no bytes received within {READ_SECONDS:.0f} s"
        ) from None
    except httpx.HTTPError as problem:
        raise VisitError(f"{asked}: {type(problem).__name__}: {problem}") from None


def made_up() -> dict[str, str]:
    """Return the header of a new key that opens nothing; the edge limits it by itself."""
    return {"Authorization": f"Bearer app-smoke{secrets.token_urlsafe(18)}"}


def is_loopback(url: str) -> bool:
    """Return whether a URL addresses this machine directly, without a proxy in between."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
