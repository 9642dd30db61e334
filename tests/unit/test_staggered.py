"""How many of the services that import Dify start at a time."""

from collections.abc import Mapping

import pytest

from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import importers
from infra.catalogue.service import Tier
from infra.services.spec import ServiceSpec
from infra.services.specs import specs, staggered
from support.configuration import settings


def waits(release: str, cores: int) -> Mapping[str, set[str]]:
    """Return which other services that import Dify each of them waits for."""
    found = specs(Tier.DIFY, settings(), RELEASES[release])
    return {
        spec.name: set(spec.after) & set(importers())
        for spec in staggered(found, cores)
        if spec.name in importers()
    }


@pytest.mark.parametrize("release", RELEASES)
def test_with_a_core_for_each_none_waits(release: str) -> None:
    assert set(map(frozenset, waits(release, len(importers())).values())) == {frozenset()}


def test_with_two_cores_two_start_at_a_time() -> None:
    assert waits("1.17.1", 2) == {
        "api": set(),
        "worker": set(),
        "api-websocket": {"api"},
        "worker-beat": {"worker"},
    }


def test_with_one_core_they_start_one_after_another() -> None:
    assert waits("1.12.1", 1) == {"api": set(), "worker": {"api"}, "worker-beat": {"worker"}}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("cores", [0, 1, 2, 3, 64])
def test_each_service_comes_after_those_it_waits_for_and_nothing_else_changes(
    release: str, cores: int
) -> None:
    before = specs(Tier.DIFY, settings(), RELEASES[release])
    after = staggered(before, cores)

    assert [spec.name for spec in after] == [spec.name for spec in before]
    seen: set[str] = set()
    for old, new in zip(before, after, strict=True):
        assert new.after[: len(old.after)] == old.after
        assert set(new.after) & set(importers()) <= seen
        assert _rest(new) == _rest(old)
        seen.add(new.name)


def _rest(spec: ServiceSpec) -> dict[str, object]:
    return {name: value for name, value in vars(spec).items() if name != "after"}
