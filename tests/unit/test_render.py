"""Rendered files, parsed: nginx by crossplane, and the rules that every edge configuration keeps."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import crossplane
import pytest

from infra.catalogue.addresses import SPECIAL_PURPOSE
from infra.catalogue.container_paths import SQUID_CONFIG
from infra.catalogue.releases import RELEASES, Route
from infra.catalogue.route_groups import TABLE, cors_groups, release_groups
from infra.edge import check as nginx_check
from infra.edge import render as render_module
from infra.edge.context import EdgeContext, edge_context
from infra.edge.paths import EDGE_DIRECTORY
from infra.engine import host_addresses
from infra.jinja import TEMPLATES, RenderError, escape_regex, render
from infra.services.files import RedisContext, squid_files
from support.configuration import settings

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "origins on every group": {
        "cors": {group: ["https://app.example.com"] for group in cors_groups() if group in release_groups()}
    },
    "everyone on v1": {"cors": {"v1": ["*"]}},
    "public name": {"publicUrl": "https://dify.example.com", "serverNames": ["old.example.com"]},
    "split hosts": {"publicUrl": "https://dify.example.com", "urls": {"app": "https://chat.example.com"}},
    "large uploads": {"maxUploadMegabytes": 500},
    "ipv6": {"publicUrl": "http://[2001:db8::1]:8080"},
}

Directive = dict[str, Any]
# Rendered and parsed once a process, by all that the result depends on: most tests look at the same few configurations.
_RENDERED: dict[str, dict[str, str]] = {}
_PARSED: dict[tuple[tuple[str, str], ...], dict[str, list[Directive]]] = {}
_DIRECTIVES: dict[str, list[Directive]] = {}


def context_of(plain: Mapping[str, Any] | None = None) -> EdgeContext:
    found = settings(plain)
    return edge_context(found, RELEASES[found.release])


def edge_files(context: EdgeContext) -> dict[str, str]:
    """Return what `render.edge_files` does, rendered once."""
    key = repr(context)
    if key not in _RENDERED:
        _RENDERED[key] = render_module.edge_files(context)
    return dict(_RENDERED[key])


def written(files: Mapping[str, str], directory: Path) -> Path:
    """Write files below a directory as they lie in the container; return nginx's directory."""
    for path, text in files.items():
        target = directory / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return directory / EDGE_DIRECTORY.lstrip("/")


def parsed(files: Mapping[str, str], tmp_path: Path) -> dict[str, list[Directive]]:
    """Return the directives of each file, by its path below nginx's directory. Equal files share them: change none."""
    key = tuple(sorted(files.items()))
    if key not in _PARSED:
        directory = written(files, tmp_path)
        nginx_check.parse(directory)
        _PARSED[key] = {
            str(path.relative_to(directory)): _directives(path, path.read_text(encoding="utf-8"))
            for path in sorted(directory.rglob("*.conf"))
        }
    return _PARSED[key]


def _directives(path: Path, text: str) -> list[Directive]:
    if text not in _DIRECTIVES:
        payload = crossplane.parse(str(path), single=True, check_ctx=False, check_args=False)
        assert payload["status"] == "ok", payload["errors"]
        _DIRECTIVES[text] = payload["config"][0]["parsed"]
    return _DIRECTIVES[text]


def walk(
    directives: list[Directive], inside: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Directive]]:
    """Yield every directive with the names of the blocks it stands in."""
    for directive in directives:
        yield inside, directive
        yield from walk(directive.get("block") or [], (*inside, directive["directive"]))


def everything(files: Mapping[str, str], tmp_path: Path) -> list[tuple[tuple[str, ...], Directive]]:
    return [one for directives in parsed(files, tmp_path).values() for one in walk(directives)]


def blocks(directives: list[Directive]) -> Iterator[list[Directive]]:
    """Yield every block of a file, the file itself first."""
    yield directives
    for directive in directives:
        if "block" in directive:
            yield from blocks(directive["block"])


def doubled_headers(files: Mapping[str, str], tmp_path: Path) -> list[tuple[str, str]]:
    """Return file and header where one block sets a header of the request twice: nginx would send both."""
    return [
        (path, name)
        for path, directives in parsed(files, tmp_path).items()
        for block in blocks(directives)
        for name, times in Counter(
            one["args"][0].lower() for one in block if one["directive"] == "proxy_set_header"
        ).items()
        if times > 1
    ]


def locations(files: Mapping[str, str], tmp_path: Path) -> dict[str, list[Directive]]:
    """Return the locations of Dify's server: match -> its directives, and those of the location where it goes on."""
    server = parsed(files, tmp_path)["servers/dify.conf"]
    found = {" ".join(one["args"]): one["block"] for _, one in walk(server) if one["directive"] == "location"}
    return {
        match: [*block, *(directive for name in _next(block) for directive in found[name])]
        for match, block in found.items()
        if not match.startswith("@counted_")
    }


def _next(block: list[Directive]) -> list[str]:
    """Return the named location that a location goes on to after its first limits."""
    return [one["args"][1] for one in block if one["directive"] == "try_files"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_parses_and_gixy_finds_nothing(release: str, variant: str, tmp_path: Path) -> None:
    plain = {**VARIANTS[variant], "release": release}
    if release in {"1.12.1", "1.14.2"} and "openapi" in plain.get("cors", {}):
        plain["cors"] = {**plain["cors"], "openapi": []}

    files = edge_files(context_of(plain))

    parsed(files, tmp_path)
    assert nginx_check.lint(written(files, tmp_path)) == []


def test_headers_are_added_in_one_place_only(tmp_path: Path) -> None:
    # One add_header in a location would drop all others there, CORS among them.
    for inside, directive in everything(edge_files(context_of()), tmp_path):
        if directive["directive"] in {"add_header", "proxy_hide_header", "proxy_set_header"}:
            assert inside == ()


def test_no_request_header_is_sent_twice(tmp_path: Path) -> None:
    assert doubled_headers(edge_files(context_of()), tmp_path) == []


def test_every_added_header_is_sent_with_errors_too(tmp_path: Path) -> None:
    added = [
        one for _, one in everything(edge_files(context_of()), tmp_path) if one["directive"] == "add_header"
    ]

    assert len(added) >= 10
    assert all(one["args"][-1] == "always" for one in added)


def test_every_cors_header_of_upstream_is_hidden(tmp_path: Path) -> None:
    found = everything(edge_files(context_of()), tmp_path)
    added = {one["args"][0] for _, one in found if one["directive"] == "add_header"}
    hidden = {one["args"][0] for _, one in found if one["directive"] == "proxy_hide_header"}

    owned = {name for name in added if name.startswith("Access-Control-")} | {"Vary"}
    assert len(owned) == 7
    assert owned <= hidden


def maps(files: Mapping[str, str], tmp_path: Path) -> dict[str, list[tuple[str, str]]]:
    """Return nginx's maps: variable -> [(pattern, value)]."""
    return {
        one["args"][1]: [(entry["directive"], (entry["args"] or [""])[0]) for entry in one["block"]]
        for _, one in everything(files, tmp_path)
        if one["directive"] == "map"
    }


def looked_up(entries: list[tuple[str, str]], key: str) -> str:
    """Return what an nginx map yields for a key: by an equal string, else by the first regular expression."""
    if key in dict(entries):
        return dict(entries)[key]
    for pattern, value in entries:
        if pattern.startswith("~") and re.search(pattern[1:], key):
            return value
    return dict(entries).get("default", "")


def evaluated(files: Mapping[str, str], tmp_path: Path) -> Callable[..., str]:
    """Return a function of a variable and of what a request has (`{"$uri": ...}`): the value that nginx's maps give."""
    known = {
        one["args"][1]: (
            one["args"][0],
            [(entry["directive"], (entry["args"] or [""])[0]) for entry in one["block"]],
        )
        for _, one in everything(files, tmp_path)
        if one["directive"] == "map"
    }

    def value(variable: str, given: Mapping[str, str]) -> str:
        if variable in given or variable not in known:
            return given.get(variable, "")
        source, entries = known[variable]
        key = re.sub(r"[$][a-z0-9_]+", lambda found: value(found[0], given), source)
        # Strings first, in any case of letters, then patterns in their order.
        for pattern, found in entries:
            if (
                not pattern.startswith("~")
                and pattern not in {"default", "volatile"}
                and pattern.lower() == key.lower()
            ):
                return value(found, given) if found.startswith("$") else found
        for pattern, found in entries:
            case = re.IGNORECASE if pattern.startswith("~*") else re.NOFLAG
            if (
                pattern.startswith("~")
                and key
                and re.search(pattern.lstrip("~").removeprefix("*"), key, case)
            ):
                return value(found, given) if found.startswith("$") else found
        found = dict(entries).get("default", "")
        return value(found, given) if found.startswith("$") else found

    return value


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example.com", True),
        ("https://app.example.com.evil.example", False),
        ("https://evil-app.example.com", False),
        ("https://app.example.com:8443", False),
        ("http://app.example.com", False),
        ("HTTPS://APP.EXAMPLE.COM", False),
        ("https://app.example.com.", False),
        ("https://appxexample.com", False),
        ("https://app.example.com/", False),
        ("null", False),
        ("", False),
    ],
)
def test_origin_is_allowed_to_the_letter(origin: str, allowed: bool, tmp_path: Path) -> None:
    files = edge_files(context_of({"cors": {"v1": ["https://app.example.com"]}}))

    entries = maps(files, tmp_path)["$cors_origin"]

    assert all(pattern.startswith("~^") or pattern == "default" for pattern, _ in entries)
    assert looked_up(entries, f"v1 {origin}") == ("https://app.example.com" if allowed else "")
    assert looked_up(entries, f"files {origin}") == ""


def test_credentials_go_with_console_and_api_and_a_named_origin_only(tmp_path: Path) -> None:
    files = edge_files(context_of({"cors": {"v1": ["*"], "console": ["https://a.example"]}}))

    value = evaluated(files, tmp_path)

    def told(group: str, origin: str) -> str:
        return value("$cors_credentials", {"$edge_group": group, "$cors_origin": origin})

    assert told("console", "https://a.example") == "true"
    assert told("api", "https://a.example") == "true"
    for group, origin in (
        ("v1", "*"),
        ("console", "*"),
        ("v1", "https://a.example"),
        ("console", ""),
        ("files", "https://a.example"),
    ):
        assert told(group, origin) == ""


@pytest.mark.parametrize("opened", [False, True])
def test_what_is_plain_is_refused_by_no_rule_and_the_rest_by_its_own(opened: bool, tmp_path: Path) -> None:
    value = evaluated(edge_files(context_of({"apiSchema": opened})), tmp_path)
    host = "localhost:8080"

    def told(sent: str, seen: str = "", host: str = host, origin: str = "https://evil.example") -> str:
        path = seen or sent.split("?", maxsplit=1)[0]
        given = {"$http_host": host, "$request_uri": sent, "$uri": path, "$http_origin": origin}
        return value("$edge_refused", given)

    for plain in (
        "/",
        "/v1/chat-messages",
        "/v1/x?a=/../b&c=%2e%2e/",
        "/docs",
        "/v1/docs-of-mine",
        "/console/api/apps",
    ):
        assert (told(plain), told(plain, host="LOCALHOST")) == ("", "")
    for strange in (
        "",
        "evil.example",
        "localhost:8080@evil.example",
        "localhost /v1/x",
        "localhost:80808080",
        "xlocalhost",
    ):
        assert told("/v1/x", host=strange) == "421"
        assert told("/_edge_error", host=strange) == ""
    for crooked in ("/v1/../x", "/v1/.", "/v1/%2e%2E/x", "/v1%2f../x"):
        assert told(crooked, "/x") == "404"
    for schema in (
        "/v1/swagger.json",
        "/V1/Docs",
        "/console/api/redoc/x",
        "/openapi/v1/_catalog",
        "/swaggerui",
    ):
        assert (told(schema), told(f"{schema}?a=b"), told("/%76", schema)) == (
            ("", "", "") if opened else ("404",) * 3
        )
    assert told("/socket.io/") == "403"
    assert told("/%73ocket.io/", "/socket.io/") == "403"
    assert told("/socket.io/", origin="http://localhost:8080") == ""
    # Dots and other characters are judged one by one, and pass.
    for unusual in ("/v1/a.b", "/v1/~x", "/v1/ä", "/a.b/c..d"):
        assert told(unusual) == ""


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/v1/chat-messages", "v1"),
        ("/v1?x=1", "v1"),
        ("/v1", "v1"),
        ("/v10/other", "web"),
        ("/console/api/setup", "console"),
        ("/api/passport", "api"),
        ("/apis", "web"),
        ("/openapi/v1/x", "openapi"),
        ("/files/x", "files"),
        ("/mcp/server/x", "mcp"),
        ("/triggers/webhook/x", "triggers"),
        ("/e/hook", "endpoints"),
        ("/socket.io/?EIO=4", "socket"),
        ("/explore/apps", "explore"),
        ("/", "web"),
        ("/signin", "web"),
    ],
)
def test_path_belongs_to_its_group(path: str, group: str, tmp_path: Path) -> None:
    assert looked_up(maps(edge_files(context_of()), tmp_path)["$edge_group"], path) == group


@pytest.mark.parametrize("release", RELEASES)
def test_exactly_the_routes_of_the_release_are_served(release: str, tmp_path: Path) -> None:
    found = locations(edge_files(context_of({"release": release})), tmp_path)
    passed = {
        match: directive["args"][0].removeprefix("http://")
        for match, block in found.items()
        for directive in block
        if directive["directive"] == "proxy_pass"
    }

    wanted = {}
    logins = [
        Route(prefix=path, group=group.name, service="api") for group in TABLE for path in group.sign_in
    ]
    for route in (*RELEASES[release].routes, *logins):
        if route.prefix.endswith("/"):
            wanted[route.prefix] = route.service
        else:
            wanted |= {f"= {route.prefix}": route.service, f"{route.prefix}/": route.service}
    assert passed == wanted


def test_every_service_behind_the_edge_is_looked_up_again(tmp_path: Path) -> None:
    files = parsed(edge_files(context_of()), tmp_path)
    hops = [one["block"] for _, one in walk(files["stream/upstreams.conf"]) if one["directive"] == "server"]
    upstreams = [one for _, one in walk(files["http/proxy.conf"]) if one["directive"] == "upstream"]

    sockets = {one["args"][0] for hop in hops for one in hop if one["directive"] == "listen"}
    reached = {one["args"][0] for up in upstreams for one in up["block"] if one["directive"] == "server"}
    included = {one["args"][0] for up in upstreams for one in up["block"] if one["directive"] == "include"}
    # The address of api comes in when the configuration goes live.
    assert included == {"live/api.conf"}
    reached |= {one["args"][0] for _, one in walk(files["live/api.conf"])}
    assert sockets == reached
    # A variable in proxy_pass is what makes nginx resolve at each connection.
    for hop in hops:
        (target,) = [one["args"][0] for one in hop if one["directive"] == "proxy_pass"]
        assert [one["args"][0] for one in hop if one["directive"] == "set"] == [target]
    assert {up["args"][0] for up in upstreams} == {"api", "api-websocket", "web", "plugin-daemon"}


def test_the_hop_is_more_patient_than_http(tmp_path: Path) -> None:
    found = everything(edge_files(context_of()), tmp_path)

    def seconds(directive: str) -> set[int]:
        return {int(one["args"][0].removesuffix("s")) for _, one in found if one["directive"] == directive}

    # The other way round a time-out would look like a service that was not reached: 503 instead of 504.
    assert min(seconds("proxy_timeout")) > max(seconds("proxy_read_timeout"))


def test_unknown_hosts_are_dropped_by_the_default_server(tmp_path: Path) -> None:
    files = parsed(edge_files(context_of()), tmp_path)
    defaults = [
        one["block"]
        for name in files
        for _, one in walk(files[name])
        if one["directive"] == "server"
        and any(d["directive"] == "listen" and "default_server" in d["args"] for d in one.get("block") or [])
    ]

    assert len(defaults) == 1
    found = {" ".join(d["args"]): d["block"] for d in defaults[0] if d["directive"] == "location"}
    assert [(d["directive"], d["args"]) for d in found["/"]] == [("return", ["444"])]
    # Neither a page nor a service: what else there is are errors, of requests that name no host.
    assert not [
        d
        for _, d in walk(defaults[0])
        if d["directive"] in {"proxy_pass", "root"} and "/var/empty" not in d["args"]
    ]


def test_status_server_listens_inside_the_container_only(tmp_path: Path) -> None:
    status = parsed(edge_files(context_of()), tmp_path)["servers/status.conf"]

    listens = [one["args"][0] for _, one in walk(status) if one["directive"] == "listen"]
    assert [address.split(":")[0] for address in listens] == ["127.0.0.1"]


def test_log_holds_neither_query_nor_credentials(tmp_path: Path) -> None:
    files = parsed(edge_files(context_of()), tmp_path)
    logged = "".join(
        part
        for _, one in walk(files["http/log.conf"])
        if one["directive"] == "log_format"
        for part in one["args"]
    )

    variables = set(re.findall(r"\$(\w+)", logged))
    assert variables
    assert variables.isdisjoint(
        {
            "request",
            "request_uri",
            "args",
            "query_string",
            "http_authorization",
            "http_cookie",
            "http_referer",
        }
    )


def test_streams_are_not_buffered(tmp_path: Path) -> None:
    found = everything(edge_files(context_of()), tmp_path)

    buffering = [
        one["args"] for _, one in found if one["directive"] in {"proxy_buffering", "gzip", "proxy_cache"}
    ]
    assert buffering
    assert {argument for arguments in buffering for argument in arguments} == {"off"}


def test_one_setting_limits_bodies(tmp_path: Path) -> None:
    found = everything(edge_files(context_of({"maxUploadMegabytes": 200})), tmp_path)

    limits = {one["args"][0] for _, one in found if one["directive"] == "client_max_body_size"}
    # 0: strangers get no answer, whatever they announce.
    assert limits == {"201m", "0"}


def test_revision_names_the_configuration() -> None:
    def revision(plain: Mapping[str, Any]) -> str:
        text = edge_files(context_of(plain))[f"{EDGE_DIRECTORY}/live/revision.conf"]
        found = re.search(r'"revision":"([0-9a-f]{12})"', text)
        assert found
        return found.group(1)

    assert revision({}) == revision({})
    assert revision({}) != revision({"cors": {"v1": ["https://a.example"]}})


def test_own_template_shadows_ours_and_snippets_are_added(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "nginx" / "snippets" / "v1").mkdir(parents=True)
    (own / "nginx" / "http").mkdir(parents=True)
    (own / "nginx" / "http" / "log.conf.j2").write_text("access_log off;\n")
    (own / "nginx" / "snippets" / "v1" / "slow.conf.j2").write_text("limit_rate {{ edge.retry_seconds }}k;\n")

    files = render_module.edge_files(context_of(), overrides=own)

    assert files[f"{EDGE_DIRECTORY}/http/log.conf"] == "access_log off;\n"
    assert files[f"{EDGE_DIRECTORY}/snippets/v1/slow.conf"] == "limit_rate 5k;\n"
    assert f"{EDGE_DIRECTORY}/http/cors.conf" in files


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{{ edge.no_such_value }}\n", 1),
        ("ok\n{% for x in %}\n", 2),
        ("a\nb\n{{ edge.routes | nofilter }}\n", 3),
    ],
)
def test_broken_template_names_itself_and_the_line(text: str, line: int, tmp_path: Path) -> None:
    (tmp_path / "nginx" / "http").mkdir(parents=True)
    (tmp_path / "nginx" / "http" / "log.conf.j2").write_text(text)

    with pytest.raises(RenderError, match=rf"nginx/http/log\.conf\.j2, line {line}:"):
        render_module.edge_files(context_of(), overrides=tmp_path)


def test_scripts_go_as_they_are(tmp_path: Path) -> None:
    ours = {path.name: path.read_text() for path in (TEMPLATES / "nginx" / "njs").glob("*.js")}
    # Left out without a proxy of dify:outbound (tests/unit/test_outbound.py).
    ours.pop("tunnel.js")
    # Left out where nginx counts itself (tests/unit/test_render_owner.py).
    ours.pop("owner.js")
    own = tmp_path / "nginx" / "njs" / "errors.js"
    own.parent.mkdir(parents=True)
    own.write_text("// {{ no template }}\n")

    files = render_module.edge_files(context_of(), overrides=tmp_path)

    scripts = {
        path.removeprefix(f"{EDGE_DIRECTORY}/njs/"): text for path, text in files.items() if "/njs/" in path
    }
    assert scripts == {**ours, "errors.js": own.read_text()}
    assert render_module.template_of("njs/errors.js", tmp_path) == str(own)
    assert render_module.template_of("njs/errors.js") == str(TEMPLATES / "nginx" / "njs" / "errors.js")


def test_a_template_in_the_place_of_a_script_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "nginx" / "njs" / "errors.js.j2"
    own.parent.mkdir(parents=True)
    own.write_text("")

    with pytest.raises(RenderError, match=r"nginx/njs/errors\.js\.j2 and nginx/njs/errors\.js"):
        render_module.edge_files(context_of(), overrides=tmp_path)


def test_scripts_hold_no_template() -> None:
    scripts = list((TEMPLATES / "nginx" / "njs").iterdir())

    assert {path.suffix for path in scripts} == {".js", ".json"}
    for path in scripts:
        assert not re.search(r"\{[{%#]", path.read_text()), path


def test_pattern_lets_nothing_through_that_ends_a_string() -> None:
    assert escape_regex("https://a.b:1") == r"https://a\.b:1"
    for text in ('a"b', "a;b", "a b", "a\nb", "a$b", "a{b", "a\\b"):
        with pytest.raises(ValueError, match="not possible in an nginx pattern"):
            escape_regex(text)


def test_redis_password_is_quoted() -> None:
    text = render("data/redis.conf.j2", {"redis": RedisContext(password='a"b\\c')})

    line = next(line for line in text.splitlines() if line.startswith("requirepass"))
    assert line == 'requirepass "a\\"b\\\\c"'


def squid_rules(service: str, plain: Mapping[str, Any] | None = None) -> list[list[str]]:
    text = squid_files(service, settings(plain))[SQUID_CONFIG]
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("service", ["ssrf-proxy", "agent-ssrf-proxy"])
def test_proxy_refuses_private_addresses_before_it_allows_anything_else(service: str) -> None:
    access = [words[1:] for words in squid_rules(service) if words[0] == "http_access"]

    assert access[-1] == ["deny", "all"]
    private = access.index(["deny", "to_private"])
    allowed_before = [rule for rule in access[:private] if rule[0] == "allow"]
    assert all("dify_files" in rule or "agent_stub" in rule for rule in allowed_before)
    assert access.index(["allow", "from_stack"]) > private


@pytest.mark.parametrize("service", ["ssrf-proxy", "agent-ssrf-proxy"])
def test_proxy_refuses_the_lists_the_host_and_what_the_operator_names(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_addresses, "engine_networks", lambda _endpoint: ("8.8.4.4/32", "8.8.8.8/32"))

    rules = squid_rules(service, {"ssrfDeny": ["9.9.9.0/24"], "ssrfAllowPrivate": ["8.8.8.8/32"]})

    [refused] = [rule[3:] for rule in rules if rule[:3] == ["acl", "to_private", "dst"]]
    assert refused == [*SPECIAL_PURPOSE, "9.9.9.0/24", "8.8.4.4/32"]


def test_proxy_asks_no_name_server_about_addresses() -> None:
    # An address in a request would be looked up backwards, and its owner could answer with a name that is allowed.
    for service in ("ssrf-proxy", "agent-ssrf-proxy"):
        rules = squid_rules(service, {"ssrfAllowPrivate": ["wiki.internal"]})
        assert [rule[3] for rule in rules if rule[2:3] == ["dstdomain"]] != []
        assert {rule[3] for rule in rules if rule[2:3] == ["dstdomain"]} == {"-n"}


def test_operator_opens_private_targets_one_by_one() -> None:
    rules = squid_rules("ssrf-proxy", {"ssrfAllowPrivate": ["10.1.2.0/24", "wiki.internal"]})

    assert ["acl", "allowed_addresses", "dst", "10.1.2.0/24"] in rules
    assert ["acl", "allowed_domains", "dstdomain", "-n", "wiki.internal"] in rules


def test_every_template_is_described() -> None:
    readme = (TEMPLATES / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9/_.-]+\.j2)`", readme))

    assert named == {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.j2")}


@pytest.mark.parametrize("release", RELEASES)
def test_names_of_variables_have_no_hyphen(release: str, tmp_path: Path) -> None:
    """Nginx ends a variable's name at the first character that is not a word's: services have hyphens in theirs."""
    files = edge_files(context_of({"release": release}))

    made = {one["args"][0] for _, one in everything(files, tmp_path) if one["directive"] == "set"}
    assert {"$api_address", "$plugin_daemon_address"} <= made
    assert [name for name in made if not re.fullmatch(r"\$\w+", name)] == []
