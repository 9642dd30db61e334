"""OAuth at the edge, as rendered: parsed, and looked up as nginx would."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue.releases import RELEASES
from infra.edge import check as nginx_check
from infra.edge.context import EdgeContext, edge_context
from infra.edge.oauth import INTROSPECTIONS, REFUSED, scope_patterns, tenant_classes
from infra.edge.paths import INTROSPECTION_BYTES, RUN_MEGABYTES
from infra.edge.scopes import ROUTES, ScopedRoute
from infra.settings.oauth import OAuth, Tenant
from infra.settings.rate_limits import Bucket, GroupLimits
from support.configuration import settings
from tests.unit.test_edge_policies import FEATURES, body_of, limits_of, pairwise
from tests.unit.test_render import (
    Directive,
    doubled_headers,
    edge_files,
    everything,
    locations,
    looked_up,
    maps,
    parsed,
    walk,
    written,
)

FIVE = GroupLimits(rate=Bucket(requests=5, seconds=60, burst=5), concurrent=2)
OAUTH = OAuth(
    issuer="https://dify.example.com",
    audience="https://dify.example.com",
    token_seconds=3600,
    tenants=(
        Tenant(name="acme", app="a", limits=FIVE),
        Tenant(name="globex", app="b", limits=GroupLimits()),
        Tenant(name="initech", app="c", limits=FIVE),
    ),
    clients={},
    issuers=(),
)


def context_of(plain: Mapping[str, Any] | None = None, oauth: OAuth | None = OAUTH) -> EdgeContext:
    found = replace(settings(plain), oauth=oauth)
    return edge_context(found, RELEASES[found.release])


@pytest.mark.parametrize("row", pairwise(FEATURES), ids=lambda row: "-".join(map(str, row)))
def test_every_pair_of_features_parses_with_oauth_too(row: tuple[int, ...], tmp_path: Path) -> None:
    plain: dict[str, Any] = {}
    for values, number in zip(FEATURES.values(), row, strict=True):
        plain |= values[number]

    files = edge_files(context_of(plain))

    parsed(files, tmp_path)
    assert nginx_check.lint(written(files, tmp_path)) == []


def test_no_request_header_is_sent_twice(tmp_path: Path) -> None:
    # The gateway would read two Authorization headers as one that holds no token.
    assert doubled_headers(edge_files(context_of()), tmp_path) == []


def test_without_oauth_nothing_of_it_is_there(tmp_path: Path) -> None:
    found = everything(edge_files(context_of(oauth=None)), tmp_path)

    assert not [one for _, one in found if "oauth_" in " ".join(one["args"])]
    assert not [one for _, one in found if one["directive"].startswith(("auth_request", "proxy_cache_path"))]
    assert "/oauth/" not in locations(edge_files(context_of(oauth=None)), tmp_path)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer a.b.c", True),
        ("bearer  a.b.", True),
        ("Bearer ..", True),
        ("a.b.c.d.e", True),
        ("Bearer app-A1b2C3d4E5f6G7h8I9j0K1l2", False),
        ("Bearer dataset-A1b2C3d4E5f6G7h8I9j0K1l2", False),
        ("Bearer a.b", False),
        ("", False),
    ],
)
def test_two_dots_make_a_token(header: str, token: bool, tmp_path: Path) -> None:
    entries = maps(edge_files(context_of()), tmp_path)["$oauth_token"]

    assert bool(looked_up(entries, header)) is token


def scope_of(request: str, tmp_path: Path) -> str:
    return looked_up(maps(edge_files(context_of()), tmp_path)["$oauth_scope"], request)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{'|'.join(route.methods)} {route.path}")
def test_every_route_of_the_table_needs_its_scope(route: ScopedRoute, tmp_path: Path) -> None:
    entries = maps(edge_files(context_of()), tmp_path)["$oauth_scope"]
    path = route.path.replace("{}", "5ad4cb98-f0c7-4085-b384-88c403be6290")

    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"):
        listed = {one.scope for one in ROUTES if one.path == route.path and method in one.methods}
        assert {looked_up(entries, f"{method} {path}"), looked_up(entries, f"{method} {path}?user=a/b")} == (
            listed or {""}
        )


@pytest.mark.parametrize(
    "request_line",
    [
        "POST //v1/chat-messages",
        "POST /v1//chat-messages",
        "POST /v1/chat-messages/",
        "POST /v1/chat-messages/..",
        "POST /v1/chat-messages/a.b/stop",
        "POST /v1/chat-messages/a%2Fb/stop",
        "POST /v1/chat-messages//stop",
        "POST /v1/%63hat-messages",
        "POST /v1/chat-messagesx",
        "POST /v1/chat-messages;a",
        "POST /v1/chat-messages#a",
        "post /v1/chat-messages",
        "POST /V1/chat-messages",
        "POST /x/v1/chat-messages",
        "DELETE /v1/conversations/",
        "GET /v1/datasets",
    ],
)
def test_path_in_another_form_is_no_route(request_line: str, tmp_path: Path) -> None:
    assert scope_of(request_line, tmp_path) == ""


@pytest.mark.parametrize(
    ("needed", "given", "denied"),
    [
        ("chat", "chat", False),
        ("chat", "files chat", False),
        ("chat", "chat files llm", False),
        ("chat", "files", True),
        ("chat", "chats", True),
        ("chat", "xchat", True),
        ("chat", "", True),
        ("", "chat", True),
        ("", "", True),
    ],
)
def test_scope_has_to_be_among_the_tokens(needed: str, given: str, denied: bool, tmp_path: Path) -> None:
    entries = maps(edge_files(context_of()), tmp_path)["$oauth_denied"]
    allowed = [
        value
        for pattern, value in entries
        if pattern.startswith("~") and re.search(pattern[1:], f"{needed} {given}")
    ]

    assert (allowed != [""]) is denied


def test_route_that_nginx_could_not_hold_is_refused() -> None:
    for route in (
        ScopedRoute(scope="admin", methods=("GET",), path="/v1/x"),
        ScopedRoute(scope="chat", methods=("GET",), path="/v1/x.*"),
        ScopedRoute(scope="chat", methods=("GET",), path="/v1/{id}"),
    ):
        with pytest.raises(ValueError, match="plain segments"):
            scope_patterns([route])


def test_tenants_with_equal_limits_share_zones() -> None:
    first, second = sorted(tenant_classes(OAUTH.tenants), key=lambda one: len(one.tenants))

    assert (first.tenants, second.tenants) == (("globex",), ("acme", "initech"))
    # A name depends on the limits alone: who joins or leaves resets nobody's count.
    alone = tenant_classes(OAUTH.tenants[:1])
    assert alone[0].name == second.name
    with pytest.raises(ValueError, match="tenant 'A'"):
        tenant_classes([Tenant(name="A", app="a", limits=FIVE)])


def ways(tmp_path: Path) -> dict[str, list[Directive]]:
    """Return the locations of calls with a token: match -> its directives."""
    found = walk(parsed(edge_files(context_of()), tmp_path)["oauth/locations.conf"])
    return {" ".join(one["args"]): one["block"] for _, one in found if one["directive"] == "location"}


def class_location(tenant: str, tmp_path: Path) -> list[Directive]:
    """Return what counts a tenant's calls and passes them on: the two locations that they pass in turn."""
    name = dict(maps(edge_files(context_of()), tmp_path)["$oauth_class"])[tenant]
    found = ways(tmp_path)
    return [*found[f"@oauth_v1_{name}"], *found[f"@oauth_v1_{name}_counted"]]


def test_a_verified_call_is_counted_as_its_tenant_and_by_no_address(tmp_path: Path) -> None:
    kinds = [args[0].removeprefix("zone=") for _, args in limits_of(class_location("acme", tmp_path))]

    assert [kind for kind in kinds if "tenant" not in kind] == ["connections_v1", "rate_v1"]
    assert sum("tenant" in kind for kind in kinds) == 2
    zones = [
        one["args"]
        for _, one in everything(edge_files(context_of()), tmp_path)
        if one["directive"] in {"limit_req_zone", "limit_conn_zone"} and "tenant_" in one["args"][1]
    ]
    assert {args[0] for args in zones} == {"$oauth_tenant"}
    assert {args[2] for args in zones if len(args) > 2} == {"rate=5r/m"}


def test_no_limit_before_introspection(tmp_path: Path) -> None:
    on_the_way, found = ways(tmp_path), locations(edge_files(context_of()), tmp_path)

    # nginx looks at limits once a request: one here, and the tenant's would never be.
    for match in ("@oauth_v1", "= /_oauth_verify"):
        assert limits_of(on_the_way[match]) == []
    for match in ("/v1/", "= /v1"):
        # The turn first; who stays may meet an api that starts.
        answers = [one["block"][0]["args"] for one in found[match] if one["directive"] == "if"]
        assert answers == [["418"], ["503"]]


def test_every_way_of_a_call_checks_the_scope_and_tells_errors_in_json(tmp_path: Path) -> None:
    calls = {match: block for match, block in ways(tmp_path).items() if match.startswith("@oauth_v1")}

    classes = {f"@oauth_v1_{one.name}" for one in tenant_classes(OAUTH.tenants)}
    counted = {f"{match}_counted" for match in classes}
    assert calls.keys() == {"@oauth_v1", "@oauth_v1_unknown", *classes, *counted}
    for block in calls.values():
        assert ["on"] in [one["args"] for one in block if one["directive"] == "recursive_error_pages"]
    for match in classes:
        refused = {
            one["args"][0]: one["block"][0]["args"] for one in calls[match] if one["directive"] == "if"
        }
        assert refused["$oauth_denied"] == ["403"], match
    # Only behind them is a call passed on, and each leads to its own.
    assert {match for match in calls if "proxy_pass" in {one["directive"] for one in calls[match]}} == counted
    leading = {
        one["args"][-1]: match
        for match, block in calls.items()
        for one in block
        if one["directive"] == "try_files" and one["args"][-1] in counted
    }
    assert leading == {f"{match}_counted": match for match in classes}


def test_introspection_carries_no_body_and_its_result_is_kept_only_as_long_as_it_states(
    tmp_path: Path,
) -> None:
    block = ways(tmp_path)["= /_oauth_verify"]
    said = {one["directive"]: one["args"] for one in block if one["directive"] != "proxy_set_header"}
    sent = {one["args"][0]: one["args"][1] for one in block if one["directive"] == "proxy_set_header"}

    assert said["internal"] == []
    assert said["proxy_pass_request_headers"] == said["proxy_pass_request_body"] == ["off"]
    assert said["proxy_cache_key"] == ["$http_authorization"]
    assert "Cache-Control" not in said["proxy_ignore_headers"]
    assert not {"proxy_cache_valid", "proxy_cache_lock", "proxy_cache_use_stale"} & said.keys()
    assert (sent["Content-Length"], sent["Authorization"]) == ("", "$http_authorization")
    assert sent["X-Real-IP"] == "$remote_addr"


def test_the_gateways_own_port_is_behind_the_hop_only(tmp_path: Path) -> None:
    files = parsed(edge_files(context_of()), tmp_path)
    passing = {
        name: {one["args"][0] for _, one in walk(found) if one["directive"] == "proxy_pass"}
        for name, found in files.items()
        if not name.startswith("stream/")
    }

    assert [name for name, targets in passing.items() if "http://gateway_internal" in targets] == [
        "servers/introspection.conf"
    ]
    gate = files["servers/introspection.conf"]
    assert [one["args"][0] for _, one in walk(gate) if one["directive"] == "listen"] == [
        "unix:/run/edge/introspection.sock"
    ]


def test_the_public_endpoints(tmp_path: Path) -> None:
    found = locations(edge_files(context_of()), tmp_path)

    for match in ("/oauth/", "= /.well-known/oauth-authorization-server"):
        said = {one["directive"]: one["args"] for one in found[match]}
        assert said["proxy_pass"] == ["http://gateway"]
        assert said["client_max_body_size"] == ["16k"]
        assert [kind for _, (kind, *_) in limits_of(found[match])] == ["connections_oauth", "zone=rate_oauth"]
    assert looked_up(maps(edge_files(context_of()), tmp_path)["$edge_group"], "/oauth/token") == "oauth"


def test_nothing_from_outside_passes_for_an_identity(tmp_path: Path) -> None:
    for oauth in (OAUTH, None):
        sent = {
            one["args"][0]: one["args"][1]
            for inside, one in everything(edge_files(context_of(oauth=oauth)), tmp_path)
            if one["directive"] == "proxy_set_header" and inside == ()
        }
        # Elsewhere they do not pass, because nothing names them.
        assert sent.keys() >= {f"X-Auth-{name}" for name in ("Sub", "Tenant", "Scopes", "Limits", "Upstream")}
        assert not [value for name, value in sent.items() if name.startswith("X-Auth-") and "$http_" in value]


def test_a_token_goes_no_further_even_without_a_key(tmp_path: Path) -> None:
    found = maps(edge_files(context_of()), tmp_path)

    assert dict(found["$upstream_authorization"])["default"] == "$oauth_authorization"
    assert dict(found["$oauth_authorization"])[""] == ""


def test_errors_of_calls_with_a_token(tmp_path: Path) -> None:
    files = edge_files(context_of())
    bodies, shapes = (
        dict(maps(files, tmp_path)["$edge_error_body"]),
        dict(maps(files, tmp_path)["$edge_shape"]),
    )

    assert shapes == {"volatile": "", "default": "$edge_group_shape", "v1": "token"}
    assert '"error":"insufficient_scope"' in bodies["token 403"]
    assert '"scope":"$oauth_scope"' in bodies["token 403"]
    for status in (401, 429, 503):
        assert bodies[f"token {status}"] == bodies[f"service {status}"]
    assert {"401", "403"} <= dict(maps(files, tmp_path)["$edge_challenge"]).keys()
    challenges = dict(maps(files, tmp_path)["$edge_challenge_of"])
    assert challenges["token 403 "] == "$oauth_challenge"
    # nginx passes the introspection result's own challenge on.
    assert "token 401 " not in challenges


def test_who_is_limited_before_and_after_the_gateway(tmp_path: Path) -> None:
    context = context_of()

    assert [zone.key for zone in context.limits.rates_at((REFUSED, INTROSPECTIONS))] == ["$limit_address"] * 2
    # A thousand new tokens at once are served.
    assert context.limits.rates_at((INTROSPECTIONS,))[0].burst > 1000
    gate = parsed(edge_files(context), tmp_path)["servers/introspection.conf"]
    assert [one["args"][0] for _, one in walk(gate) if one["directive"] == "limit_req"] == [
        f"zone={context.limits.rates_at((INTROSPECTIONS,))[0].name}"
    ]


def test_bodies_are_those_of_the_group_without_a_token(tmp_path: Path) -> None:
    found = maps(edge_files(context_of()), tmp_path)
    found["$edge_shape"] = found["$edge_group_shape"]

    assert body_of(found, "/oauth/token", 429) == {"error": "rate_limit_exceeded", "retry_after": 7}
    assert body_of(found, "/oauth/token", 503)["error"] == "temporarily_unavailable"
    assert body_of(found, "/v1/x", 403)["code"] == "forbidden"


def everywhere(files: Mapping[str, str], tmp_path: Path) -> dict[str, list[Directive]]:
    """Return the locations of all files."""
    found = everything(files, tmp_path)
    return {" ".join(one["args"]): one["block"] for _, one in found if one["directive"] == "location"}


def limits_with(**parts: Any) -> EdgeContext:
    """Return what the edge is rendered from with some of `dify:oauth.limits` changed."""
    tenants = {"acme": {"app": "echo-chat"}}
    found = settings({"oauth": {"enabled": True, "tenants": tenants, "limits": parts}})
    return edge_context(found, RELEASES[found.release])


def zones_of(context: EdgeContext, tmp_path: Path) -> dict[str, str]:
    """Return the rate of each zone, by its name without the hash of its key."""
    found = [
        one["args"]
        for _, one in everything(edge_files(context), tmp_path)
        if one["directive"] == "limit_req_zone"
    ]
    return {re.sub(r"^zone=|_[0-9a-f]{6}:.*$", "", args[1]): args[-1] for args in found}


def test_limits_of_the_settings_reach_nginx(tmp_path: Path) -> None:
    context = limits_with(
        address={"requests": 5, "seconds": 60, "burst": 3, "concurrent": 2},
        refusedTokens={"requests": 7, "seconds": 60},
        newTokens={"requests": 9, "seconds": 1, "burst": 4},
    )
    files = edge_files(context)
    places = {**everywhere(files, tmp_path), **locations(files, tmp_path)}

    zones = zones_of(context, tmp_path)
    assert zones["rate_oauth"] == "rate=5r/m"
    assert zones["rate_oauth_refused"] == "rate=7r/m"
    assert zones["rate_oauth_introspections"] == "rate=9r/s"
    assert limits_of(places["/oauth/"]) == [
        ("limit_conn", ["connections_oauth", "2"]),
        ("limit_req", ["zone=rate_oauth", "burst=2", "nodelay"]),
    ]
    assert limits_of(places["@oauth_refused"]) == [
        ("limit_req", ["zone=rate_oauth_refused", "burst=6", "nodelay"])
    ]
    assert limits_of(places["= /verify"]) == [
        ("limit_req", ["zone=rate_oauth_introspections", "burst=3", "nodelay"])
    ]


def test_limits_that_are_off_leave_nothing(tmp_path: Path) -> None:
    off = {"requests": 0}
    context = limits_with(address={**off, "concurrent": 0}, refusedTokens=off, newTokens=off)
    files = edge_files(context)
    places = everywhere(files, tmp_path)

    assert nginx_check.lint(written(files, tmp_path)) == []
    assert not [name for name in zones_of(context, tmp_path) if name.startswith("rate_oauth")]
    assert [limits_of(places[match]) for match in ("/oauth/", "@oauth_refused", "= /verify")] == [[]] * 3


def error_pages(block: list[Directive]) -> dict[str, str]:
    """Return what a location makes of each status: the first page for it counts."""
    found: dict[str, str] = {}
    for one in block:
        if one["directive"] == "error_page":
            *statuses, target = one["args"]
            into = next((part for part in statuses if part.startswith("=")), "")
            for status in statuses:
                if not status.startswith("="):
                    found.setdefault(status, f"{into}{target}")
    return found


def test_no_answer_of_the_gateway_in_time_is_a_503_and_of_dify_a_504(tmp_path: Path) -> None:
    files = edge_files(context_of())
    places = locations(files, tmp_path)
    (page,) = [file for name, file in parsed(files, tmp_path).items() if name == "parts/error_pages.conf"]

    assert error_pages(page)["504"] == "@edge_error"
    for match in ("/oauth/", "= /.well-known/oauth-authorization-server"):
        assert error_pages(places[match]) == {"504": "=503@edge_error"}
        # The rest would be gone there.
        assert next(one["args"] for one in places[match] if one["directive"] == "include") == [
            "parts/error_pages.conf"
        ]
    assert error_pages(places["/v1/"]) == {}


def test_every_introspection_result_that_nginx_may_keep_fits_on_its_tmpfs(tmp_path: Path) -> None:
    found = everything(edge_files(context_of()), tmp_path)
    said = {one["directive"]: one["args"] for _, one in found}
    (zone,) = [part for part in said["proxy_cache_path"] if part.startswith("keys_zone=")]
    unit = {"k": 1024, "m": 1024 * 1024}
    size = int(zone[:-1].rpartition(":")[2]) * unit[zone[-1]]
    count, header = said["large_client_header_buffers"]
    longest_token = int(header[:-1]) * unit[header[-1]]

    # A key takes 128 bytes of the zone. On disk a file is whole pages, of the token and of the answer.
    assert int(count) >= 1
    assert longest_token + 2 * 4096 <= INTROSPECTION_BYTES
    assert size // 128 * INTROSPECTION_BYTES <= RUN_MEGABYTES * 1024 * 1024 * 0.8
