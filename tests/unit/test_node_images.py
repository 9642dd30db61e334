"""The images that a cluster's nodes pull from the operator's registry: which, and under which names."""

from typing import Any

import pytest

from dify_kit.errors import KitError
from dify_kit.images import node_images
from dify_kit.images.wanted import Present
from infra.platforms.images import local_name
from infra.platforms.kubernetes.images import NodeImages
from support.configuration import settings
from tests.unit.test_program_oauth import OAUTH
from tests.unit.test_settings_kubernetes import on_cluster

REGISTRY = "registry.example.com:5000/dify"


class Store:
    """An engine that has every image, and what it was asked to push."""

    def __init__(self) -> None:
        self.pushed: list[str] = []

    def find(self, reference: str) -> Present | None:
        known = not reference.startswith(REGISTRY)
        return Present(id=f"id of {reference}", size=1, platform="linux/amd64", layers=()) if known else None

    def tag(self, image_id: str, name: str) -> None:
        assert name == f"{REGISTRY}/{image_id.removeprefix('id of ')}"

    def push(self, name: str) -> str:
        self.pushed.append(name)
        return "sha256:abc"

    def untag(self, name: str) -> None:
        assert name in self.pushed


@pytest.mark.parametrize(
    ("more", "roles"),
    [({"images": "registry"}, set()), ({"images": "registry", **OAUTH}, {"gateway"})],
)
def test_only_what_no_registry_has_is_pushed(more: dict[str, Any], roles: set[str]) -> None:
    found = settings(on_cluster(more, registry=REGISTRY))

    pairs = node_images.to_push(found)

    assert {role for one in pairs for role in one.wanted.roles} == roles
    assert {one.target for one in pairs} == {f"{REGISTRY}/{local_name(role)}" for role in roles}


def test_nodes_pull_what_was_pushed() -> None:
    found = settings(on_cluster({"images": "local"}, registry=REGISTRY))
    store: Any = Store()
    assert found.kubernetes

    done = node_images.push(found, store)

    names = NodeImages(found, found.dify, found.kubernetes)
    assert {names.id_of(role) for role in ("api", "web", "postgres", "nginx", "squid")} <= {*store.pushed}
    assert {one.digest for one in done} == {"sha256:abc"}


def test_a_stack_whose_nodes_have_the_images_names_no_registry() -> None:
    with pytest.raises(KitError, match="names no registry to push to") as problem:
        node_images.to_push(settings(on_cluster({"images": "local"})))

    assert "set kubernetes.registry" in problem.value.hint


def test_a_stack_on_docker_pushes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_images, "ImageStore", lambda: pytest.fail("no engine is needed"))

    with pytest.raises(KitError, match="dify:platform is docker"):
        node_images.to_push(settings({}))
    node_images.ensure(settings({}))
    node_images.ensure(settings(on_cluster({"images": "local"})))


def test_without_an_engine_the_registry_has_to_have_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> None:
        raise KitError("the Docker engine does not answer: no socket", "run `dify-kit setup`")

    monkeypatch.setattr(node_images, "ImageStore", absent)

    node_images.ensure(settings(on_cluster({"images": "local"}, registry=REGISTRY)))

    assert f"{REGISTRY} has to have them" in " ".join(capsys.readouterr().err.split())
