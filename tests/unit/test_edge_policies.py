"""The edge's limits, error shapes and access rules, as rendered: parsed, and looked up as nginx would."""

import json
import re
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue.releases import RELEASES
from infra.catalogue.route_groups import CONSOLE, TABLE, group, limited_groups
from infra.edge import check as nginx_check
from infra.edge.context import EdgeContext
from infra.edge.errors import ERRORS, SHAPES, group_shapes
from infra.edge.routes import EdgeRoute
from tests.unit.test_render import (
    Directive,
    context_of,
    edge_files,
    everything,
    locations,
    looked_up,
    maps,
    parsed,
    walk,
    written,
)

TOKEN = "app-" + "A1b2C3d4E5f6G7h8I9j0K1l2"
JWT = "eyJhbGciOiJIUzI1NiJ9." + "e" * 190 + "." + "S" * 43
ALLOWED = ["10.1.0.0/16", "2001:db8::/32"]
# Every byte that Python's str.split() splits a header at.
BLANKS = [chr(byte) for byte in range(256) if chr(byte).isspace()]

# Feature -> its values. Every value of each meets every value of the others at least once.
FEATURES: dict[str, list[dict[str, Any]]] = {
    "release": [{"release": release} for release in RELEASES],
    "limits": [
        {},
        {"rateLimits": {"dryRun": True, "v1": {"requests": 5, "seconds": 60, "concurrent": 5}}},
        {"rateLimits": {group: {"requests": 0, "concurrent": 0} for group in limited_groups()}},
    ],
    "proxies": [
        {},
        {"trustedProxies": ["172.16.0.0/12", "2001:db8::7"]},
        {"trustedProxies": ["172.16.0.0/12", "2001:db8::7"], "proxyProtocol": True},
    ],
    "console": [{}, {"consoleAllowFrom": ALLOWED}],
    "log": [{}, {"accessLog": "errors"}, {"accessLog": "off"}],
    "cors": [{}, {"cors": {"v1": ["*"], "files": ["https://a.example"]}}],
    "address": [{}, {"publicUrl": "https://dify.example.com", "urls": {"app": "https://chat.example.com"}}],
}


def pairwise(features: dict[str, list[dict[str, Any]]]) -> list[tuple[int, ...]]:
    """Return combinations of values, by their numbers, in which every pair of values occurs."""
    sizes = [range(len(values)) for values in features.values()]
    pairs = {
        (first, one, second, other)
        for first, second in combinations(range(len(sizes)), 2)
        for one, other in product(sizes[first], sizes[second])
    }
    chosen = []
    while pairs:
        best = max(product(*sizes), key=lambda row: len(pairs & _pairs_of(row)))
        pairs -= _pairs_of(best)
        chosen.append(best)
    return chosen


def _pairs_of(row: tuple[int, ...]) -> set[tuple[int, int, int, int]]:
    return {(a, row[a], b, row[b]) for a, b in combinations(range(len(row)), 2)}


@pytest.mark.parametrize("row", pairwise(FEATURES), ids=lambda row: "-".join(map(str, row)))
def test_every_pair_of_features_parses_and_gixy_finds_nothing(row: tuple[int, ...], tmp_path: Path) -> None:
    plain: dict[str, Any] = {}
    for values, number in zip(FEATURES.values(), row, strict=True):
        plain |= values[number]

    files = edge_files(context_of(plain))

    parsed(files, tmp_path)
    assert nginx_check.lint(written(files, tmp_path)) == []


def limits_of(block: list[Directive]) -> list[tuple[str, list[str]]]:
    """Return the limits of a location, zones without the hash of their key."""
    return [
        (one["directive"], [re.sub(r"_[0-9a-f]{6}$", "", one["args"][0]), *one["args"][1:]])
        for one in block
        if one["directive"] in {"limit_req", "limit_conn"}
    ]


def test_five_in_a_minute_as_nginx_reads_it(tmp_path: Path) -> None:
    plain = {"rateLimits": {"v1": {"requests": 5, "seconds": 60, "concurrent": 5, "addressRequests": 0}}}
    files = edge_files(context_of(plain))

    found = limits_of(locations(files, tmp_path)["/v1/"])

    # Those of requests under way first, in a location before that of the rate: what they refuse uses no rate up.
    assert found == [
        ("limit_conn", ["address_connections_v1", "400"]),
        ("limit_conn", ["connections_v1", "5"]),
        ("limit_req", ["zone=rate_v1", "burst=4", "nodelay"]),
    ]
    zones = [one["args"] for _, one in everything(files, tmp_path) if one["directive"] == "limit_req_zone"]
    assert [args[-1] for args in zones if args[1].startswith("zone=rate_v1_")] == ["rate=5r/m"]


def test_one_at_a_time_has_no_burst(tmp_path: Path) -> None:
    plain = {"rateLimits": {"files": {"requests": 60, "seconds": 60, "burst": 1}}}

    found = limits_of(locations(edge_files(context_of(plain)), tmp_path)["/files/"])

    assert [one for one in found if one[0] == "limit_req"] == [("limit_req", ["zone=rate_files", "nodelay"])]


@pytest.mark.parametrize("release", RELEASES)
def test_every_group_has_its_limits_and_logins_have_more(release: str, tmp_path: Path) -> None:
    found = locations(edge_files(context_of({"release": release})), tmp_path)

    for route in RELEASES[release].routes:
        kinds = {
            args[0].removeprefix("zone=") for _, args in limits_of(found[f"{route.prefix.rstrip('/')}/"])
        }
        if route.group in {"socket", "endpoints", "explore", "web"}:
            assert kinds == set()
        else:
            assert {f"rate_{route.group}", f"connections_{route.group}"} <= kinds
    for one in TABLE:
        for match in (match for path in one.sign_in for match in (f"= {path}", f"{path}/")):
            kinds = {args[0].removeprefix("zone=") for _, args in limits_of(found[match])}
            usual = {f"rate_{one.name}", f"address_rate_{one.name}"}
            assert {"rate_login", "connections_login", *usual} <= kinds


def test_dry_run_is_said_once_and_only_when_asked(tmp_path: Path) -> None:
    def switches(plain: dict[str, Any]) -> list[str]:
        found = everything(edge_files(context_of(plain)), tmp_path)
        return sorted(one["directive"] for _, one in found if one["directive"].endswith("_dry_run"))

    assert switches({}) == []
    assert switches({"rateLimits": {"dryRun": True}}) == ["limit_conn_dry_run", "limit_req_dry_run"]


def test_limits_answer_429(tmp_path: Path) -> None:
    found = everything(edge_files(context_of()), tmp_path)

    statuses = {one["directive"]: one["args"] for _, one in found if one["directive"].endswith("_status")}
    assert statuses == {"limit_req_status": ["429"], "limit_conn_status": ["429"]}


def captured(entries: list[tuple[str, str]], key: str) -> str:
    """Return what an nginx map with captures yields for a key; a variable as it is written without one."""
    for pattern, value in entries:
        flags = re.IGNORECASE if pattern.startswith("~*") else 0
        pythonic = (
            pattern.lstrip("~*").replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!")
        )
        if pattern.startswith("~") and (match := re.search(pythonic, key, flags)):
            return match.groupdict().get(value.removeprefix("$"), value)
    return dict(entries)["default"]


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (f"Bearer {TOKEN}", TOKEN),
        (f"bearer {TOKEN}", TOKEN),
        (f"BEARER   {TOKEN}", TOKEN),
        (f"Bearer {JWT}", JWT[-48:]),
        ("Bearer " + "x" * 48, "x" * 48),
        ("Bearer dataset-" + "y" * 60, "y" * 48),
        # A character stands for a byte, as in Python's header. What Python takes for white space makes no other bucket.
        *((f"Bearer{blank}{TOKEN}", TOKEN) for blank in BLANKS),
        *((f"Bearer {TOKEN}{blank}", TOKEN) for blank in BLANKS),
        *((f"{blank}Bearer {blank}{JWT}{blank}", JWT[-48:]) for blank in BLANKS),
        # U+00A0 in UTF-8 is a letter and a blank.
        (f"Bearer \u00c2\u00a0{TOKEN}", "$limit_address"),
        (f"Bearer {TOKEN} x", "$limit_address"),
        (f"Basic {TOKEN}", "$limit_address"),
        (f"Bearer{TOKEN}", "$limit_address"),
        # As long as an address: it could be one.
        ("Bearer " + "z" * 16, "$limit_address"),
        ("", "$limit_address"),
    ],
)
def test_credential_is_what_can_be_nothing_else(header: str, key: str, tmp_path: Path) -> None:
    assert captured(maps(edge_files(context_of()), tmp_path)["$limit_token"], header) == key


@pytest.mark.parametrize("blank", ["", *BLANKS])
def test_white_space_makes_no_other_passport(blank: str, tmp_path: Path) -> None:
    entries = maps(edge_files(context_of()), tmp_path)["$limit_passport"]

    assert captured(entries, f"{blank}{JWT}{blank}") == JWT[-48:]


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (f"access_token={JWT}", JWT[-48:]),
        (f"locale=en; access_token={JWT}; csrf_token=x", JWT[-48:]),
        (f"__Host-access_token={JWT}; __Host-refresh_token=x", JWT[-48:]),
        ("locale=en", "$limit_token"),
        ("", "$limit_token"),
        (f"access_token=junk; access_token={JWT}", "$limit_address"),
        (f'access_token="{JWT}"', "$limit_address"),
        (f"access_token={JWT}; \u00a0access_token=junk", "$limit_address"),
        (f"\u00a0access_token={JWT}", "$limit_address"),
        ("access_token=short", "$limit_address"),
    ],
)
def test_session_is_one_cookie_in_its_plain_form(header: str, key: str, tmp_path: Path) -> None:
    assert captured(maps(edge_files(context_of()), tmp_path)["$limit_session"], header) == key


@pytest.mark.parametrize(
    ("status", "seconds"),
    [("REJECTED,PASSED", "$retry_rate"), ("PASSED,REJECTED", "2"), ("PASSED,PASSED", ""), (",", "")],
)
def test_retry_after_depends_on_the_cause(status: str, seconds: str, tmp_path: Path) -> None:
    entries = maps(edge_files(context_of()), tmp_path)["$retry_limit"]

    assert looked_up(entries, status) == seconds
    assert looked_up(entries, status.replace("REJECTED", "REJECTED_DRY_RUN")) == ""


@pytest.mark.parametrize(
    ("path", "seconds"),
    [
        ("/v1/chat-messages", "13"),
        ("/v1", "13"),
        ("/console/api/apps", "1"),
        ("/console/api/login", "63"),
        ("/console/api/login/status", "63"),
        ("/console/api/loginx", "1"),
        ("/files/x", "1"),
    ],
)
def test_wait_is_that_of_the_location(path: str, seconds: str, tmp_path: Path) -> None:
    plain = {
        "rateLimits": {
            "v1": {"requests": 5, "seconds": 60},
            "login": {"requests": 1, "seconds": 60},
        }
    }

    assert looked_up(maps(edge_files(context_of(plain)), tmp_path)["$retry_rate"], path) == seconds


def with_later_groups() -> EdgeContext:
    """Return a context with the groups of the OAuth gateway and the LLM proxy."""
    context = context_of()
    later = tuple(
        EdgeRoute(prefix=f"/{group}/", group=group, service="api", max_body_megabytes=None)
        for group in ("oauth", "llm")
    )
    return replace(context, routes=(*later, *context.routes))


def body_of(found: dict[str, list[tuple[str, str]]], path: str, status: int, retry: str = "7") -> Any:
    """Return the body that nginx would make for an error on a path."""
    shape = dict(found["$edge_shape"]).get(looked_up(found["$edge_group"], path))
    text = dict(found["$edge_error_body"])[f"{shape or dict(found['$edge_shape'])['default']} {status}"]
    return json.loads(text.replace("$edge_retry_number", retry))


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (
            "/v1/x",
            401,
            {"error": "invalid_token", "error_description": "The access token is invalid or has expired"},
        ),
        ("/v1/x", 429, {"error": "rate_limit_exceeded", "retry_after": 7}),
        ("/v1/x", 403, {"code": "forbidden", "message": "Access is not allowed.", "status": 403}),
        (
            "/console/api/x",
            429,
            {
                "code": "too_many_requests",
                "message": "Too many requests. Wait as long as Retry-After says.",
                "status": 429,
            },
        ),
        (
            "/oauth/token",
            401,
            {"error": "invalid_client", "error_description": "Authentication is required."},
        ),
        (
            "/oauth/token",
            413,
            {
                "error": "invalid_request",
                "error_description": "The request body is larger than this server accepts.",
            },
        ),
        (
            "/llm/v1/models",
            429,
            {
                "error": {
                    "message": "Too many requests. Wait as long as Retry-After says.",
                    "type": "rate_limit_error",
                    "param": None,
                    "code": "rate_limit_exceeded",
                }
            },
        ),
    ],
)
def test_error_has_the_shape_of_its_group(path: str, status: int, body: Any, tmp_path: Path) -> None:
    assert body_of(maps(edge_files(with_later_groups()), tmp_path), path, status) == body


def test_every_shape_says_every_error_in_json(tmp_path: Path) -> None:
    found = maps(edge_files(with_later_groups()), tmp_path)

    texts = dict(found["$edge_error_body"])
    assert set(group_shapes().values()) <= set(SHAPES)
    for shape, error in product(SHAPES, ERRORS):
        assert json.loads(texts[f"{shape} {error.status}"].replace("$edge_retry_number", "1"))
    assert json.loads(texts["default"].replace("$status", "418"))["status"] == 418


def test_only_own_401_gets_a_challenge(tmp_path: Path) -> None:
    found = maps(edge_files(context_of()), tmp_path)
    assert dict(found["$edge_challenge"]) == {"volatile": "", "default": "", "401": "$edge_challenge_of"}
    entries = dict(found["$edge_challenge_of"])

    assert entries["service 401 "] == 'Bearer error="invalid_token"'
    assert {key for key in entries if key not in {"volatile", "default"}} == {f"{one} 401 " for one in SHAPES}
    assert entries["default"] == ""


@pytest.mark.parametrize("name", ["servers/dify.conf", "servers/unknown.conf"])
def test_errors_are_told_the_same_way_everywhere(name: str, tmp_path: Path) -> None:
    files = parsed(edge_files(context_of()), tmp_path)
    server = next(one["block"] for _, one in walk(files[name]) if one["directive"] == "server")

    assert ["parts/errors.conf"] in [one["args"] for one in server if one["directive"] == "include"]
    # One error_page of its own in a location would drop all of them there.
    for file in files.values():
        assert not [
            inside for inside, one in walk(file) if one["directive"] == "error_page" and "location" in inside
        ]


def access(block: list[Directive]) -> list[tuple[str, str]]:
    return [(one["directive"], one["args"][0]) for one in block if one["directive"] in {"allow", "deny"}]


@pytest.mark.parametrize("release", RELEASES)
def test_console_is_open_to_the_named_networks_only(release: str, tmp_path: Path) -> None:
    found = locations(edge_files(context_of({"release": release, "consoleAllowFrom": ALLOWED})), tmp_path)
    wanted = [*(("allow", network) for network in ALLOWED), ("deny", "all")]

    guarded = {match for match, block in found.items() if access(block)}

    assert all(access(found[match]) == wanted for match in guarded)
    pages = {match for page in group("web").console_pages for match in (f"= {page}", f"{page}/")}
    assert {"/console/api/", "= /console/api", "/explore/", *pages} <= guarded
    assert {f"{path}/" for path in group(CONSOLE).sign_in} <= guarded
    assert ("/socket.io/" in guarded) == ("/socket.io/" in found)
    assert not guarded & {"/v1/", "/api/", "/api/login/", "/files/", "/mcp/", "/triggers/", "/e/", "/"}


def test_console_is_open_to_everyone_by_default(tmp_path: Path) -> None:
    found = locations(edge_files(context_of()), tmp_path)

    assert not [match for match, block in found.items() if access(block)]
    assert "/signin/" not in found


def test_nobody_is_believed_by_default(tmp_path: Path) -> None:
    found = everything(edge_files(context_of()), tmp_path)

    assert not [one for _, one in found if one["directive"] in {"set_real_ip_from", "real_ip_header"}]
    assert maps(edge_files(context_of()), tmp_path)["$edge_proto"] == [("default", "http")]


def test_named_proxies_are_believed(tmp_path: Path) -> None:
    files = edge_files(context_of({"trustedProxies": ["172.16.0.0/12"], "publicUrl": "https://d.example"}))

    found = {one["directive"]: one["args"] for _, one in everything(files, tmp_path)}
    assert found["set_real_ip_from"] == ["172.16.0.0/12"]
    assert found["real_ip_header"] == ["X-Forwarded-For"]
    assert found["real_ip_recursive"] == ["on"]
    schemes = dict(maps(files, tmp_path)["$edge_proto"])
    assert schemes == {"default": "https", "trusted https": "https", "trusted http": "http"}
    ports = maps(files, tmp_path)["$edge_port"]
    assert captured(ports, "trusted 8443") == "8443"
    assert captured(ports, "untrusted 8443") == "443"
    assert captured(ports, "trusted 8443, 1") == "443"


def test_the_proxy_protocol_has_ports_of_its_own_and_believes_named_proxies_alone(tmp_path: Path) -> None:
    plain = {"trustedProxies": ["172.16.0.0/12"], "tls": {"mode": "selfsigned"}}
    files = edge_files(context_of({**plain, "proxyProtocol": True}))
    servers = [
        {inner["directive"]: inner["args"] for inner in one["block"]}
        for one in parsed(files, tmp_path)["stream/clients.conf"]
        if one["directive"] == "server"
    ]
    found = {" ".join(one["listen"]): one for one in servers}

    assert set(found) == {"8080", "8443", "8086 proxy_protocol", "8087 proxy_protocol"}
    for listen, socket in (("8086 proxy_protocol", "http"), ("8087 proxy_protocol", "https")):
        assert found[listen]["set_real_ip_from"] == ["172.16.0.0/12"]
        assert found[listen]["limit_conn"] == ["clients", "1000"]
        assert found[listen]["pass"] == [f"unix:/run/edge/{socket}.sock"]
    assert "set_real_ip_from" not in found["8080"]
    assert "proxy_protocol" not in edge_files(context_of(plain))["/etc/dify-kit/nginx/stream/clients.conf"]


def test_keys_are_not_logged(tmp_path: Path) -> None:
    files = edge_files(context_of())
    logged = "".join(
        part
        for _, one in everything(files, tmp_path)
        if one["directive"] == "log_format"
        for part in one["args"]
    )

    assert "$limit_req_status" in logged
    assert not re.findall(r"\$limit_(?!req_status|conn_status)\w+", logged)
    levels = {
        one["directive"]: one["args"]
        for _, one in everything(files, tmp_path)
        if "log_level" in one["directive"]
    }
    # Below what the error log takes: a rejection there would repeat the query.
    assert levels == {"limit_req_log_level": ["info"], "limit_conn_log_level": ["info"]}


@pytest.mark.parametrize(
    ("setting", "conditions"), [("all", [[]]), ("errors", [["if=$log_wanted"]]), ("off", [])]
)
def test_access_log_is_what_the_setting_says(
    setting: str, conditions: list[list[str]], tmp_path: Path
) -> None:
    files = edge_files(context_of({"accessLog": setting}))
    logs = [one["args"] for _, one in everything(files, tmp_path) if one["directive"] == "access_log"]

    # Those that count requests are in memory, regardless of the setting (test_render_traffic.py).
    written = [args for args in logs if args != ["off"] and not args[1].startswith("traffic")]
    assert [[word for word in args if word.startswith("if=")] for args in written] == conditions
    if setting == "errors":
        wanted = maps(files, tmp_path)["$log_wanted"]
        assert [captured(wanted, status) for status in ("200", "308", "401", "503")] == ["0", "0", "1", "1"]
