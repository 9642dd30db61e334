"""The table of route groups: a group that is only in the table appears everywhere that groups have a meaning."""

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from infra.catalogue import release_file, releases, route_groups
from infra.catalogue.project import ROOT, declared
from infra.catalogue.releases import RELEASES, Release
from infra.catalogue.route_groups import (
    SIGN_IN_LIMIT,
    TABLE,
    Body,
    CorsKind,
    ErrorShape,
    Headers,
    LimitKey,
    OwnRoutes,
    RouteGroup,
)
from infra.edge import check as nginx_check
from infra.edge.context import EdgeContext, edge_context
from infra.edge.errors import CHALLENGES, SHAPES
from infra.edge.routes import own_routes
from infra.exports import group_facts, limit_facts
from infra.jinja import TEMPLATES
from infra.settings.stack import Settings
from infra.settings.urls import Urls
from smoke_tests import conftest as smoke
from smoke_tests.closed import schema_paths
from smoke_tests.run import RUN
from smoke_tests.target import Target, from_exports
from support.configuration import settings
from tests.unit.test_edge_policies import access, body_of, limits_of
from tests.unit.test_render import Directive, edge_files, locations, looked_up, maps, parsed, walk, written
from tests.unit.test_settings import told
from tests.unit.test_smoke_target import EXPORTS, chosen

REPORTS = RouteGroup(
    name="reports",
    limit_key=LimitKey.TOKEN,
    app_limit=True,
    cors=CorsKind.CREDENTIALS,
    frontend="app",
    cors_variable="REPORTS_CORS_ALLOW_ORIGINS",
    url="console",
    body=Body.WEBHOOK,
    errors=ErrorShape.SERVICE,
    headers=Headers.PAGES,
    console=True,
    sign_in=("/reports/enter", "/reports/sso"),
    sign_in_by_get=("/reports/sso",),
    hook_url=True,
    probe="/status",
    schema="/v2",
)
LIMITS = {"requests": 90, "seconds": 3, "burst": 0, "concurrent": 7}
ADDRESS_LIMITS = {"addressRequests": 200, "addressSeconds": 2, "addressConcurrent": 20}
ORIGIN = "https://reports.example.com"
OFFICE = "10.1.0.0/16"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the pretend group into the table, and its defaults into what Pulumi.yaml declares."""
    monkeypatch.setattr(route_groups, "TABLE", (*TABLE, REPORTS))
    monkeypatch.setitem(declared()["rateLimits"]["default"], REPORTS.name, {**LIMITS, **ADDRESS_LIMITS})


@pytest.fixture
def release(table: None, tmp_path: Path) -> Iterator[Path]:  # noqa: ARG001  # the group of its route
    """Write a pretend release with a route of the pretend group; return its directory."""
    document = yaml.safe_load((releases.CATALOGUE / "1.17.1.yaml").read_text(encoding="utf-8"))
    document["version"] = "9.9.9"
    document["routes"].insert(0, {"prefix": "/reports", "group": REPORTS.name, "service": "api"})
    directory = tmp_path / "catalogue"
    directory.mkdir()
    (directory / "9.9.9.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    yield directory
    releases.catalogue.cache_clear()


def stack_of(release: Path, **plain: Any) -> tuple[Settings, Release]:
    """Return the settings of a stack with the pretend release, and the release."""
    found = settings({"catalogue": str(release), "release": "9.9.9", "cors": {"reports": [ORIGIN]}, **plain})
    return found, found.dify


def context_of(release: Path, **plain: Any) -> EdgeContext:
    return edge_context(*stack_of(release, **plain))


def test_a_release_may_name_it(release: Path) -> None:
    assert release_file.problems(release / "9.9.9.yaml") == []


def test_its_settings_are_read(release: Path) -> None:
    found, _ = stack_of(release, rateLimits={"reports": {"requests": 5, "seconds": 60}})

    assert found.cors.origins("reports") == (found.urls.app, ORIGIN)
    limits = found.rate_limits.groups["reports"]
    assert limits.rate
    assert (limits.rate.requests, limits.rate.seconds, limits.concurrent) == (5, 60, 7)
    assert limits.address_concurrent == 20


@pytest.mark.usefixtures("table")
def test_its_settings_are_checked() -> None:
    (cookies,) = told({"cors": {"reports": ["*"]}})
    (requests,) = told({"rateLimits": {"reports": {"requests": -1}}})

    assert cookies.startswith("dify:cors.reports: '*': these routes carry cookies")
    assert requests.startswith("dify:rateLimits.reports.requests: '-1'")
    active = settings({"limits": {"activeRequests": 3}})
    assert active.rate_limits.groups["reports"].concurrent == 3


def test_dify_gets_its_origins(release: Path) -> None:
    from infra.services.environment import environment  # noqa: PLC0415  # after the table changed

    found, known = stack_of(release)

    assert environment("api", found, known)[REPORTS.cors_variable] == f"{found.urls.app},{ORIGIN}"


def test_nginx_serves_it_with_its_policy(release: Path, tmp_path: Path) -> None:
    files = edge_files(context_of(release, consoleAllowFrom=[OFFICE]))
    served = locations(files, tmp_path)
    known = maps(files, tmp_path)

    assert looked_up(known["$edge_group"], "/reports/x") == "reports"
    for match in ("= /reports", "/reports/"):
        block = served[match]
        assert limits_of(block) == [
            ("limit_conn", ["address_connections_reports", "20"]),
            ("limit_conn", ["connections_reports", "7"]),
            ("limit_req", ["zone=address_rate_reports", "burst=199", "nodelay"]),
            ("limit_req", ["zone=rate_reports", "burst=89", "nodelay"]),
        ]
        assert args_of(block, "client_max_body_size") == [["16m"]] * 2
        assert ["parts/passed_pages.conf"] in args_of(block, "include")
        assert ["snippets/reports/*.conf"] in args_of(block, "include")
        assert access(block) == [("allow", OFFICE), ("deny", "all")]
    zones = [one["args"] for one in walked(files, tmp_path) if one["directive"] == "limit_req_zone"]
    (own,) = [zone for zone in zones if zone[1].startswith("zone=rate_reports_")]
    assert own == ["$limit_token", own[1], "rate=30r/s"]
    assert {"rate_reports", "rate_login"} <= rate_zones(served["= /reports/enter"])
    # GET requests count, so the key is the address whatever the method is.
    by_get = {zone[1].partition(":")[0] for zone in zones if zone[0] == "$limit_address"}
    assert by_get & {args[0] for args in args_of(served["= /reports/sso"], "limit_req") if "login" in args[0]}
    assert body_of(known, "/reports/x", 429) == {"error": "rate_limit_exceeded", "retry_after": 7}
    assert looked_up(known["$cors_origin"], f"reports {ORIGIN}") == ORIGIN
    assert looked_up(known["$cors_origin"], f"reports {ORIGIN}.evil.example") == ""
    assert dict(known["$cors_credentials"])["reports"] == "$cors_cookies"
    assert looked_up(known["$cors_cookies"], ORIGIN) == "true"
    assert "reports" in dict(known["$hook_url"])
    assert nginx_check.lint(written(files, tmp_path)) == []


def args_of(block: list[Directive], directive: str) -> list[list[str]]:
    return [one["args"] for one in block if one["directive"] == directive]


def rate_zones(block: list[Directive]) -> set[str]:
    return {args[0].removeprefix("zone=") for kind, args in limits_of(block) if kind == "limit_req"}


def walked(files: dict[str, str], tmp_path: Path) -> list[Directive]:
    return [one for directives in parsed(files, tmp_path).values() for _, one in walk(directives)]


def test_its_schema_is_closed(release: Path) -> None:
    (pattern, _) = context_of(release).schema_patterns

    assert re.search(pattern, "/reports/v2/swagger.json", re.IGNORECASE)


def target_of(release: Path) -> Target:
    found, known = stack_of(release)
    exports = {"routeGroups": group_facts(found, known), "rateLimits": limit_facts(found.rate_limits, known)}
    return from_exports({**EXPORTS, **exports, "release": known.version}, chosen())


def test_it_is_exported_and_the_smoke_tests_probe_it(release: Path) -> None:
    found, _ = stack_of(release)
    target = target_of(release)

    (policy,) = [one for one in target.policies if one.group == "reports"]
    assert policy.path == f"{found.urls.console}/reports/status"
    assert (policy.allowed, policy.credentials) == ((found.urls.app, ORIGIN), True)
    assert target.deployment
    assert target.deployment.rate_limits.groups["reports"]["requests"] == 90
    assert "/reports/v2/swagger.json" in schema_paths(target.schemas)


@pytest.mark.parametrize("name", ["case", "sent_case"])
def test_the_smoke_tests_have_a_case_for_it(release: Path, name: str) -> None:
    made: dict[str, list[str]] = {}
    config = SimpleNamespace(stash={RUN: SimpleNamespace(target=target_of(release))})
    metafunc = SimpleNamespace(
        config=config,
        fixturenames=[name],
        parametrize=lambda name, values, ids: made.update({name: [ids(one) for one in values]}),
    )

    smoke.pytest_generate_tests(cast("pytest.Metafunc", metafunc))

    assert {"reports-allowed-1", "reports-unrelated", "reports-null"} <= set(made[name])


def test_a_service_of_the_kit_is_a_row_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = OwnRoutes(
        feature="llm", prefixes=("/meter/",), service="gateway", body_kilobytes=3, repeatable=True
    )
    monkeypatch.setattr(route_groups, "TABLE", (*TABLE, RouteGroup(name="meter", own=own)))
    off = settings()
    on = settings({"llm": {"enabled": True}}, {"llmKeys": '{"holysheep": "hs-kkkkkkkkkkkkkkkkkkkkkkkkkkk"}'})

    served = locations(edge_files(edge_context(on, on.dify)), tmp_path)

    assert args_of(served["/meter/"], "client_max_body_size") == [["3k"]]
    assert args_of(served["/meter/"], "proxy_pass") == [["http://gateway"]]
    assert "/meter/" not in locations(edge_files(edge_context(off, off.dify)), tmp_path)
    assert own_routes(route_groups.group("v1")) == ()


def test_every_limit_has_its_defaults() -> None:
    given = {key: value for key, value in declared()["rateLimits"]["default"].items() if key != "dryRun"}

    assert tuple(given) == route_groups.limited_groups()
    for name, key in route_groups.limit_keys().items():
        assert ("addressRequests" in given[name]) == (key is not LimitKey.ADDRESS)


def test_the_descriptions_of_settings_list_the_groups() -> None:
    assert declared()["cors"]["description"].endswith(f": {', '.join(route_groups.cors_groups())}")
    assert f" {', '.join(route_groups.limited_groups())}: " in declared()["rateLimits"]["description"]


def test_names_of_the_table_exist() -> None:
    parts = {one.name for one in fields(Urls)}
    templates = {path.name for path in (TEMPLATES / "nginx" / "parts").iterdir()}

    assert len(route_groups.groups()) == len(TABLE)
    assert SIGN_IN_LIMIT not in route_groups.groups()
    for one in TABLE:
        assert {one.frontend, one.url} <= {*parts, ""}
        assert not one.headers or f"passed_{one.headers}.conf.j2" in templates
        assert not one.own or one.own.feature in {field.name for field in fields(Settings)}
        assert not one.cors_as or route_groups.group(one.cors_as).cors is not CorsKind.NONE
        assert set(one.sign_in_by_get) <= set(one.sign_in)
    assert set(SHAPES) == set(CHALLENGES) == set(ErrorShape)


def test_every_group_is_in_a_release_or_the_kits_own() -> None:
    used = {route.group for known in RELEASES.values() for route in known.routes}

    assert used == set(route_groups.release_groups())


def test_the_guides_list_the_groups() -> None:
    guide = (ROOT / "docs" / "guides" / "edge.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`(/[^`]*)`|everything else) \| `(\w+)` \| ([\w-]+)", guide, re.MULTILINE)
    newest = next(iter(RELEASES.values())).routes
    assert [(prefix or "/", group, service) for prefix, group, service in rows] == [
        (route.prefix, route.group, route.service) for route in sorted_as(newest, [row[1] for row in rows])
    ]
    readme = (ROOT / "templates" / "README.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"every location of a route group: (.*) \|", readme)
    assert set(re.findall(r"`(\w+)`", listed)) == set(route_groups.groups())


def sorted_as(routes: tuple[releases.Route, ...], groups: list[str]) -> list[releases.Route]:
    """Return routes in the order of their groups; a group that is not listed fails."""
    return sorted(routes, key=lambda route: groups.index(route.group))


def test_probes_are_those_of_the_releases_prefixes() -> None:
    routes = (releases.Route(prefix="/one/", group="v1", service="api"),)

    assert route_groups.probes(routes)["v1"].path == "/one/parameters"
    assert route_groups.probes((replace(routes[0], group="web"),)) == {}
