"""The expected CORS headers, and origins that imitate an allowed one."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from smoke_tests.client import Answer

# Dify's cookies are used on these groups, so their answers name an origin and allow credentials; others never do.
CREDENTIALED_GROUPS = frozenset({"console", "api"})
# One harmless address of each group. Dify answers most with 404, which must carry the headers too.
PATHS = {
    "v1": "/v1/parameters",
    "console": "/console/api/setup",
    "api": "/api/smoke-test",
    "openapi": "/openapi/smoke-test",
    "files": "/files/smoke-test",
    "mcp": "/mcp/smoke-test",
    "triggers": "/triggers/smoke-test",
}
UNRELATED = "https://unrelated.example"
MAX_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Which origins may call a route group, as configured. `own` is where look-alikes start without one."""

    group: str
    url: str
    allowed: tuple[str, ...]
    own: str
    # Without the stack's exports, the origins that console and web app allow are unknown.
    complete: bool = True

    @property
    def path(self) -> str:
        """The URL that is requested."""
        return self.url + PATHS[self.group]

    @property
    def probe(self) -> str:
        """The origin of single checks: an allowed one, or else the stack's own."""
        named = [origin for origin in self.allowed if origin != "*"]
        return named[0] if named else self.own

    def answer_to(self, origin: str) -> str | None:
        """Return the Access-Control-Allow-Origin expected for this origin; None means no such header."""
        if "*" in self.allowed:
            return "*"
        return origin if origin in self.allowed else None

    def credentials_for(self, origin: str) -> str | None:
        """Return the Access-Control-Allow-Credentials expected for this origin."""
        named = self.answer_to(origin) not in {None, "*"}
        return "true" if named and self.group in CREDENTIALED_GROUPS else None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One origin that requests one route group."""

    policy: Policy
    kind: str
    origin: str

    def __str__(self) -> str:
        """Return the test's id."""
        return f"{self.policy.group}-{self.kind}"


def look_alikes(origin: str) -> dict[str, str]:
    """Return origins that differ from `origin` but pass a careless comparison, by kind."""
    parts = urlsplit(origin)
    host = parts.netloc.removesuffix(f":{parts.port}") if parts.port else parts.netloc
    port = f":{parts.port}" if parts.port else ""
    other_port = 8443 if parts.port is None else parts.port + (1 if parts.port < MAX_PORT else -1)
    other_scheme = "http" if parts.scheme == "https" else "https"
    candidates = {
        "suffix": f"{parts.scheme}://{host}.evil.example{port}",
        "prefix": f"{parts.scheme}://evil{host}{port}",
        "subdomain": f"{parts.scheme}://evil.{host}{port}",
        "other-port": f"{parts.scheme}://{host}:{other_port}",
        "other-scheme": f"{other_scheme}://{host}{port}",
        "upper-case": origin.upper(),
        "trailing-dot": f"{parts.scheme}://{host}.{port}",
        "trailing-slash": f"{origin}/",
        "user-name": f"{origin}@evil.example",
        "dot-as-any": f"{parts.scheme}://{host.replace('.', 'x', 1)}{port}",
    }
    return {kind: one for kind, one in candidates.items() if one != origin}


def cases(policy: Policy) -> list[Case]:
    """Return the origins to try: the allowed ones, an unrelated one, `null`, and look-alikes of an allowed one."""
    origins: dict[str, str] = {}
    if policy.complete:
        named = [origin for origin in policy.allowed if origin != "*"]
        origins |= {f"allowed-{place}": origin for place, origin in enumerate(named, 1)}
        origins |= {} if policy.own in named else {"own": policy.own}
    origins |= {"unrelated": UNRELATED, "null": "null"} | look_alikes(policy.probe)
    return [Case(policy=policy, kind=kind, origin=origin) for kind, origin in origins.items()]


def tokens(values: Iterable[str]) -> list[str]:
    """Return the members of a comma-separated header, in lower case, over all its lines."""
    return [token.strip().lower() for value in values for token in value.split(",") if token.strip()]


def problems(answer: Answer, case: Case) -> list[str]:
    """Return what is wrong with the CORS headers of an answer to this origin; empty when they are correct."""
    found = []
    access = [(name, value) for name, value in answer.headers if name.startswith("access-control-")]
    found += [
        f"{name} occurs {count} times"
        for name, count in Counter(name for name, _ in access).items()
        if count > 1
    ]
    wanted = case.policy.answer_to(case.origin)
    for name, expected in (
        ("access-control-allow-origin", wanted),
        ("access-control-allow-credentials", case.policy.credentials_for(case.origin)),
    ):
        if answer.values(name) != ([] if expected is None else [expected]):
            found.append(f"{name}: {answer.values(name)}, {expected or 'none'} expected")
    if wanted is None and access:
        found.append(f"the answer to a refused origin contains {sorted(name for name, _ in access)}")
    if (count := tokens(answer.values("vary")).count("origin")) != 1:
        found.append(
            f"Vary names Origin {count} times, once expected: caches would mix up the answers to several origins"
        )
    return found
