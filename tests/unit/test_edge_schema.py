"""The paths of Dify's schemas, against the routes that a real Dify has."""

import json
import re

import pytest

from infra.catalogue.project import ROOT
from infra.catalogue.releases import RELEASES
from infra.catalogue.route_groups import probes
from infra.edge.schema import schema_patterns
from smoke_tests.closed import schema_paths

ROUTES = json.loads((ROOT / "tests" / "facts" / "routes-1.17-pre.json").read_text(encoding="utf-8"))


def closed(path: str, release: str) -> bool:
    """Tell whether the edge answers a path by itself, given in its normal form."""
    patterns = schema_patterns(RELEASES[release].routes, opened=False)
    return any(re.search(pattern, path, re.IGNORECASE) for pattern in patterns)


@pytest.mark.parametrize("release", RELEASES)
def test_every_blueprint_is_closed(release: str) -> None:
    places = [one.schema for one in probes(RELEASES[release].routes).values() if one.schema is not None]
    normal = re.compile(r"(?:/[a-z0-9_-]+(?:[.][a-z]+)?)+")
    paths = [path for path in schema_paths(places) if normal.fullmatch(path)]

    assert len(paths) >= 2 * len(places) >= 10
    assert not [path for path in paths if not closed(path, release)]


@pytest.mark.parametrize("release", RELEASES)
def test_no_route_of_a_real_dify_is_closed(release: str) -> None:
    routes = [route.split(" ", 1)[1] for group in ROUTES.values() for route in group]

    assert len(routes) > 900
    assert not [path for path in routes if closed(path, release)]


def test_a_stack_may_open_them() -> None:
    assert schema_patterns(RELEASES["1.17.1"].routes, opened=True) == ()
