"""The gate in front of console and web app, seen by a client without a session."""

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from smoke_tests.client import Answer

# What a browser sends when it opens a page, and when a script of a page calls.
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Mode": "navigate"}
CALL = {"Accept": "application/json", "Sec-Fetch-Mode": "cors"}
START = "/oauth2/start"
NEEDED = ("state", "nonce", "code_challenge")
SHORTEST_RANDOM = 20


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The gate's addresses. `client_id` and `callbacks` are empty where only the address is known."""

    url: str
    app_url: str
    web_app: bool = True
    client_id: str = ""
    callbacks: tuple[str, ...] = ()

    @property
    def pages(self) -> tuple[str, ...]:
        """Pages behind the gate."""
        console = (f"{self.url}/signin", f"{self.url}/apps?page=1")
        return (*console, f"{self.app_url}/chat/smoke-test") if self.web_app else console

    @property
    def calls(self) -> tuple[str, ...]:
        """Calls behind the gate."""
        console = (f"{self.url}/console/api/setup", f"{self.url}/console/api/apps")
        return (*console, f"{self.app_url}/api/smoke-test") if self.web_app else console


def closed_page(answer: Answer, url: str) -> str:
    """Return why an answer is not a redirect to the sign-in with the page to return to; empty when it is."""
    parts = urlsplit(url)
    wanted = f"{START}?rd={parts.path}" + (f"?{parts.query}" if parts.query else "")
    location = answer.header("location") or ""
    if answer.status != 302 or location not in {wanted, f"{parts.scheme}://{parts.netloc}{wanted}"}:
        return f"302 to {wanted} expected: {answer!r}"
    return ""


def closed_call(answer: Answer) -> str:
    """Return why an answer is not the gate's 401; empty when it is."""
    if answer.status != 401:  # as in the contract
        return f"401 expected: {answer!r}"
    if answer.header("content-type") != "application/json" or answer.json().get("code") != "unauthorized":
        return f"the body of the 401 is not a JSON error of Dify's format: {answer!r}"
    # Dify names its version on every answer.
    return f"the request passed the gate; Dify answered: {answer!r}" if answer.header("x-version") else ""


def sign_in_problems(answer: Answer, gate: Gate) -> list[str]:
    """Return what is wrong with the redirect to the provider; empty when it is correct."""
    location = answer.header("location") or ""
    asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    if answer.status != 302 or not location.startswith(("https://", "http://")):
        return [f"302 to the provider expected; check that the gateway reaches it: {answer!r}"]
    wanted = {"response_type": "code", "code_challenge_method": "S256"}
    if gate.client_id:
        wanted["client_id"] = gate.client_id
    found = [
        f"{name} is {asked.get(name)!r}, {value!r} expected"
        for name, value in wanted.items()
        if asked.get(name) != value
    ]
    found += [
        f"{name} is missing or too short" for name in NEEDED if len(asked.get(name, "")) < SHORTEST_RANDOM
    ]
    if "openid" not in asked.get("scope", "").split():
        found.append("the scope lacks openid")
    callback = f"{gate.url}/oauth2/callback"
    if asked.get("redirect_uri") not in (gate.callbacks or (callback,)):
        found.append(f"redirect_uri is {asked.get('redirect_uri')!r}, which is not exported")
    return found


def cookie_problems(answer: Answer, *, https: bool) -> list[str]:
    """Return what is wrong with the cookies that the start of a sign-in sets; empty when they are correct."""
    cookies = answer.values("set-cookie")
    found = [] if cookies else ["no cookie binds the sign-in to this browser"]
    for cookie in cookies:
        name = cookie.partition("=")[0]
        received = {part.strip().lower() for part in cookie.split(";")[1:]}
        needed = {"httponly", "samesite=lax", "path=/", *(("secure",) if https else ())}
        found += [f"{name} lacks {part}" for part in sorted(needed - received)]
        if https and not name.startswith("__Host-"):
            found.append(f"{name} does not begin with __Host-")
    return found
