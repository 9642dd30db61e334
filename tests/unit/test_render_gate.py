"""The gate at the edge, as rendered: parsed, and looked up as nginx would."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue.releases import RELEASES
from infra.catalogue.request_headers import MORE, PASSED
from infra.catalogue.route_groups import group
from infra.edge import check as nginx_check
from infra.edge.context import EdgeContext, edge_context
from infra.settings.oauth import OAuth
from tests.unit.gate_settings import gated
from tests.unit.test_edge_policies import captured
from tests.unit.test_render import (
    Directive,
    edge_files,
    everything,
    locations,
    looked_up,
    maps,
    parsed,
    walk,
    written,
)
from tests.unit.test_render_llm import stack
from tests.unit.test_render_oauth import OAUTH

ID = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0U-_"
COOKIE = "__Host-dify_gate"
OUTSIDE = (
    *("/v1/", "= /v1", "/files/", "/e/", "/triggers/", "/mcp/", "/openapi/", "/oauth/", "/oauth2/"),
    *("= /healthz", "= /.well-known/oauth-authorization-server"),
)


def context_of(
    plain: Mapping[str, Any] | None = None, oauth: OAuth | None = None, **parts: Any
) -> EdgeContext:
    found = replace(gated(plain, **parts), oauth=oauth)
    return edge_context(found, RELEASES[found.release])


def asked(block: list[Directive]) -> list[str]:
    """Return what a location includes for the gate."""
    return [one["args"][0] for one in block if one["args"] == ["parts/gate.conf"]]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("plain", "oauth", "parts"),
    [
        ({}, None, {}),
        ({"consoleAllowFrom": ["10.0.0.0/8"], "accessLog": "errors"}, OAUTH, {}),
        ({"trustedProxies": ["10.0.0.0/8"]}, None, {"webApp": False}),
    ],
)
def test_it_parses_and_gixy_finds_nothing(
    release: str, plain: dict[str, Any], oauth: OAuth | None, parts: dict[str, Any], tmp_path: Path
) -> None:
    files = edge_files(context_of({**plain, "release": release}, oauth, **parts))

    parsed(files, tmp_path)
    assert nginx_check.lint(written(files, tmp_path)) == []


def test_without_a_gate_nothing_of_it_is_there(tmp_path: Path) -> None:
    files = edge_files(replace(context_of(oauth=OAUTH), gate=None))

    found = everything(files, tmp_path)

    assert not [one for _, one in found if "gate_check" in " ".join(one["args"])]
    assert not [
        one for _, one in found if one["directive"] == "auth_request" and one["args"] == ["/_gate_check"]
    ]


@pytest.mark.parametrize("release", RELEASES)
def test_what_is_inside_and_what_is_not(release: str, tmp_path: Path) -> None:
    found = locations(edge_files(context_of({"release": release}, OAUTH)), tmp_path)
    inside = {name for name, block in found.items() if asked(block)}

    routes = RELEASES[release].routes
    assert {
        "/",
        "/console/api/",
        "/api/",
        "= /api",
        "/explore/",
        "/console/api/login/",
        "= /console/api/setup",
    } <= inside
    assert ("/socket.io/" in inside) == any(route.prefix == "/socket.io/" for route in routes)
    assert not inside & set(OUTSIDE)
    assert set(OUTSIDE) - {"/openapi/"} <= set(found)
    groups = {"v1", "files", "endpoints", "triggers", "mcp", "openapi"}
    for route in routes:
        assert (f"{route.prefix.rstrip('/')}/" in inside) == (route.group not in groups)


def test_the_web_app_can_stay_outside(tmp_path: Path) -> None:
    found = locations(edge_files(context_of(webApp=False)), tmp_path)
    inside = {name for name, block in found.items() if asked(block)}

    assert not inside & {"/", "/api/", "= /api", "/api/login/", *OUTSIDE}
    assert {"/console/api/", "/explore/", "/socket.io/"} <= inside
    for page in group("web").console_pages:
        assert {f"= {page}", f"{page}/"} <= inside


def test_the_llm_proxy_is_outside(tmp_path: Path) -> None:
    llm = stack().llm
    found = replace(gated(), oauth=OAUTH, llm=llm)
    files = edge_files(edge_context(found, RELEASES[found.release]))
    (short,) = [
        one
        for _, one in walk(parsed(files, tmp_path)["parts/llm.conf"])
        if one["directive"] == "location" and one["args"] == ["=", "/api/chat"]
    ]

    assert not asked(short["block"])
    assert nginx_check.lint(written(files, tmp_path)) == []


def test_a_location_behind_the_gate_keeps_every_error_page(tmp_path: Path) -> None:
    files = edge_files(context_of(oauth=OAUTH))
    found = everything(files, tmp_path)

    def pages(file: str) -> list[list[str]]:
        text = next(text for path, text in files.items() if path.endswith(file))
        return [line.split()[1:] for line in text.splitlines() if line.startswith("error_page")]

    own = pages("parts/gate.conf")
    assert own == [["401", "@gate_closed;"], ["500", "@gate_undecided;"]]
    assert len(pages("parts/error_pages.conf")) == 4
    included = [one["args"] for _, one in found if one["directive"] == "include"]
    assert included.count(["parts/error_pages.conf"]) >= 2


@pytest.mark.parametrize(
    ("cookies", "session"),
    [
        (f"{COOKIE}={ID}", ID),
        (f"locale=en; {COOKIE}={ID}", ID),
        (f"{COOKIE}={ID}; locale=en", ID),
        (f"a=b;{COOKIE}={ID};c=d", ID),
        (f"{COOKIE}_ab12cd34=x; {COOKIE}={ID}", ID),
        (f"dify_gate={ID}", ""),
        (f"x{COOKIE}={ID}", ""),
        (f"{COOKIE}={ID}x", ""),
        (f"{COOKIE}={ID[:-1]}", ""),
        (f"{COOKIE}={ID}; {COOKIE}=x", ""),
        (f"{COOKIE}=x; a=b; {COOKIE}={ID}", ""),
        (f'{COOKIE}="{ID}"', ""),
        (f"a={COOKIE}={ID}", ""),
        ("", ""),
    ],
)
def test_a_session_is_one_cookie_in_its_plain_form(cookies: str, session: str, tmp_path: Path) -> None:
    entries = maps(edge_files(context_of()), tmp_path)["$gate_session"]

    assert captured(entries, cookies) == session


@pytest.mark.parametrize(
    ("cookies", "left"),
    [
        (f"{COOKIE}={ID}", ""),
        (f"locale=en; {COOKIE}={ID}; access_token=x", "locale=en; access_token=x"),
        (f"{COOKIE}={ID}; access_token=x", "access_token=x"),
        (f"access_token=x; {COOKIE}={ID}", "access_token=x; "),
        (f"x{COOKIE}={ID}; a=b", f"x{COOKIE}={ID}; a=b"),
        ("access_token=x", "access_token=x"),
    ],
)
def test_dify_does_not_get_the_gates_cookie(cookies: str, left: str, tmp_path: Path) -> None:
    ((pattern, value), *_) = [
        one for one in maps(edge_files(context_of()), tmp_path)["$gate_other_cookies"] if one[0] != "default"
    ]
    match = re.search(pattern.lstrip("~").replace("(?<", "(?P<"), cookies)

    assert value == "$gate_before$gate_after"
    assert (match["gate_before"] + match["gate_after"] if match else cookies) == left


@pytest.mark.parametrize(
    ("request_", "page"),
    [
        ("GET navigate text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("GET  text/html", True),
        ("HEAD navigate text/html", True),
        ("GET cors text/html", False),
        ("GET cors */*", False),
        ("GET  */*", False),
        ("GET navigate application/json", False),
        ("POST navigate text/html", False),
        ("GET websocket ", False),
    ],
)
def test_pages_are_led_to_the_sign_in_and_calls_are_not(request_: str, page: bool, tmp_path: Path) -> None:
    assert bool(looked_up(maps(edge_files(context_of()), tmp_path)["$gate_page"], request_)) is page


def test_nobody_outside_says_who_somebody_is(tmp_path: Path) -> None:
    files = parsed(edge_files(context_of()), tmp_path)

    def sent(name: str) -> set[str]:
        return {one["args"][0] for _, one in walk(files[name]) if one["directive"] == "proxy_set_header"}

    claims = {f"X-Auth-Request-{name}" for name in ("User", "Email", "Groups")} | {"X-Forwarded-User"}
    # Where everything passes, they are emptied; elsewhere what is not named does not pass.
    assert claims <= sent("parts/passed_open.conf")
    assert not claims & sent("parts/passed.conf")
    assert [
        one["args"]
        for _, one in walk(files["http/headers.conf"])
        if one["directive"] == "proxy_pass_request_headers"
    ] == [["off"]]


def test_only_nginx_requests_introspection_and_its_result_is_never_kept(tmp_path: Path) -> None:
    (location,) = [
        one
        for one in parsed(edge_files(context_of()), tmp_path)["gate/locations.conf"]
        if one["args"] == ["=", "/_gate_check"]
    ]
    check = {one["directive"]: one["args"] for _, one in walk(location["block"])}

    assert "internal" in check
    assert check["proxy_pass_request_headers"] == ["off"]
    assert "proxy_cache" not in check


def test_no_header_passes_that_is_not_named(tmp_path: Path) -> None:
    found = replace(gated(), oauth=OAUTH, llm=stack().llm)
    files = parsed(edge_files(edge_context(found, RELEASES[found.release])), tmp_path)
    said = [(name, one) for name, directives in files.items() for _, one in walk(directives)]

    switches = {name: one["args"] for name, one in said if one["directive"] == "proxy_pass_request_headers"}
    assert [name for name, args in switches.items() if args == ["on"]] == ["parts/passed_open.conf"]
    assert switches["http/headers.conf"] == ["off"]
    # What a client says, by the names of the lists; the edge checks it first, or asks the gateway about it.
    lists = {name.lower() for name in (*PASSED, *(one for more in MORE.values() for one in more))}
    known = lists | {"authorization", "cookie", "host", "upgrade", "x-request-id", "x-gate-session"}
    sent = {
        variable.replace("_", "-")
        for _, one in said
        if one["directive"] == "proxy_set_header"
        for variable in re.findall(r"[$]http_([a-z0-9_]+)", one["args"][1])
    }
    assert "user-agent" in sent
    assert sent <= known
