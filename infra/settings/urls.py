"""The origins under which a stack is reached, and those that may call it from a browser."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from infra.catalogue import route_groups
from infra.catalogue.route_groups import RouteGroup
from infra.settings import origins
from infra.settings.reader import Section

URL_PARTS = ("console", "app", "service", "files", "trigger", "endpoint")


@dataclass(frozen=True, kw_only=True)
class Urls:
    """The origins under which Dify's parts are reached, each without a trailing slash."""

    console: str
    app: str
    service: str
    files: str
    trigger: str
    endpoint: str

    @property
    def every(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(getattr(self, part.name) for part in fields(self)))


@dataclass(frozen=True, kw_only=True)
class Cors:
    """Allowed origins by route group; `("*",)` means every origin."""

    groups: Mapping[str, tuple[str, ...]]

    def origins(self, group: str) -> tuple[str, ...]:
        """Return the allowed origins of a group, empty when no other origin may call it."""
        return self.groups.get(group, ())


def read_origin(top: Section, key: str, origin: str) -> str:
    """Return `origin`; one that is not an origin is reported under `key`, and a harmless one takes its place."""
    if problem := origins.origin_problem(origin):
        top.problems.add(key, origin, problem, "use scheme://host[:port], such as https://dify.example.com")
        return "http://invalid.example"
    return origin


def read_public_url(top: Section, scheme: str, port: int) -> str:
    """Read `dify:publicUrl`; without it the stack is reached at localhost."""
    given = top.text("publicUrl")
    if given:
        return read_origin(top, "publicUrl", given)
    return f"{scheme}://localhost" + ("" if port == origins.DEFAULT_PORTS[scheme] else f":{port}")


def read_urls(top: Section, public_url: str) -> Urls:
    """Read `dify:urls`; a part that is not set is `public_url`."""
    section = top.section("urls", dict.fromkeys(URL_PARTS, ""))
    found = {
        part: read_origin(top, section.key(part), section.text(part)) if section.text(part) else public_url
        for part in URL_PARTS
    }
    schemes = {url.partition(":")[0] for url in found.values()}
    if len(schemes) > 1:
        top.problems.add(
            "urls",
            ", ".join(sorted(set(found.values()))),
            "http and https mixed: Dify's cookies would be lost between them",
            "give publicUrl and all of urls the same scheme",
        )
    return Urls(**found)


def read_hosts(top: Section, urls: Urls) -> tuple[str, ...]:
    """Return the hosts under which people reach the stack, by origin and by `serverNames`."""
    names = [origins.host_of(getattr(urls, part.name)) for part in fields(urls)]
    for name in top.texts("serverNames"):
        if problem := origins.host_problem(name):
            top.problems.add("serverNames", name, problem, "use a host name such as dify.example.com")
            continue
        names.append(name)
    return tuple(dict.fromkeys(names))


def read_cors(top: Section, urls: Urls) -> Cors:
    """Read `dify:cors`."""
    names = route_groups.cors_groups()
    section = top.section("cors", {name: [] for name in names})
    return Cors(groups={name: _allowed(section, route_groups.group(name), urls) for name in names})


def _allowed(section: Section, group: RouteGroup, urls: Urls) -> tuple[str, ...]:
    """Return the origins that may call a group: those of its own frontend and those of its setting."""
    given = _given(section, group.name)
    _warn_of_mixed_content(section, group.name, given, urls)
    return tuple(dict.fromkeys((getattr(urls, group.frontend), *given))) if group.frontend else given


def _warn_of_mixed_content(section: Section, group: str, given: tuple[str, ...], urls: Urls) -> None:
    """Warn of pages by https that may call the stack by http: browsers send such a request to loopback alone."""
    plain = [
        url for url in urls.every if url.startswith("http:") and not origins.is_loopback(origins.host_of(url))
    ]
    blocked = [origin for origin in given if origin.startswith("https:")]
    if plain and blocked:
        section.problems.warnings.append(
            f"dify:{section.key(group)}: {', '.join(blocked)}: browsers block requests of pages with https to "
            f"{', '.join(plain)} (mixed content); serve the stack by TLS (tls.mode), or, where a proxy in front does "
            "it, start publicUrl with https://"
        )


def _given(section: Section, group: str) -> tuple[str, ...]:
    listed = section.texts(group)
    if "*" in listed:
        # Their responses carry cookies: `*` would open them to every page.
        if route_groups.with_credentials(group):
            section.problems.add(
                section.key(group), "*", "these routes carry cookies", "list the origins one by one"
            )
            return ()
        if len(listed) > 1:
            section.problems.add(
                section.key(group),
                ", ".join(listed),
                "* already allows every origin",
                "list * alone, or origins",
            )
        return ("*",)
    return tuple(read_origin(section, section.key(group), origin) for origin in listed)
