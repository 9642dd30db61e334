"""Which images a stack takes from where: references, digests, logins, and images that have to be there already."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import pulumi
import pytest

from infra import engine
from infra.catalogue.images import BASE, BASE_ROLE, Image, own_roles
from infra.catalogue.releases import RELEASES
from infra.engine.registry_login import logged_in
from infra.guards import checks
from infra.guards import images as image_guard
from infra.platforms import image_needs
from infra.platforms.images import (
    loaded_name,
    local_name,
    pulled_name,
    reference,
    registry_of,
)
from support.configuration import settings
from tests.unit.recording import CONTAINER, DYNAMIC, IMAGE, Recorder, run_program
from tests.unit.test_litellm import LLM, SECRETS
from tests.unit.test_program_oauth import OAUTH
from tests.unit.test_program_tls import ACME

DIGEST = "sha256:" + "a" * 64
MIRROR: dict[str, Any] = {
    "images": "mirror",
    "mirror": "registry.example.com:5000/dify",
    "vectorStore": "weaviate",
}
PRELOADED: dict[str, Any] = {"images": "preloaded", "vectorStore": "weaviate"}
PROVIDER = "pulumi:providers:docker"


@pytest.mark.parametrize(
    ("repository", "host"),
    [
        ("postgres", ""),
        ("langgenius/dify-api", ""),
        # Docker takes both for repositories of Docker Hub.
        ("registry/dify", ""),
        ("foo.bar", ""),
        ("ghcr.io/berriai/litellm", "ghcr.io"),
        ("localhost/x", "localhost"),
        ("localhost:5000/x", "localhost:5000"),
        ("registry:5000/x/y", "registry:5000"),
    ],
)
def test_the_registry_of_a_name_is_told_as_docker_tells_it(repository: str, host: str) -> None:
    assert registry_of(repository) == host


@pytest.mark.parametrize(
    ("repository", "mirror", "pinned", "name"),
    [
        ("postgres", "", True, f"postgres:15@{DIGEST}"),
        ("postgres", "", False, "postgres:15"),
        ("postgres", "localhost:5000", True, f"localhost:5000/postgres:15@{DIGEST}"),
        ("postgres", "registry:5000/a/b/", False, "registry:5000/a/b/postgres:15"),
        ("ghcr.io/berriai/litellm", "r.example/x", False, "r.example/x/berriai/litellm:15"),
        ("registry:5000/own/image", "r.example/x", False, "r.example/x/own/image:15"),
        ("localhost/own", "r.example", False, "r.example/own:15"),
        ("foo.bar", "r.example/x", False, "r.example/x/foo.bar:15"),
    ],
)
def test_a_mirror_takes_the_place_of_a_registry(
    repository: str, mirror: str, pinned: bool, name: str
) -> None:
    image = Image(repository=repository, tag="15", digest=DIGEST)

    assert pulled_name(image, mirror, pinned=pinned) == name


def test_a_loaded_image_has_no_digest_in_its_name() -> None:
    assert loaded_name(Image(repository="postgres", tag="15-alpine", digest=DIGEST)) == "postgres:15-alpine"


@pytest.mark.parametrize("mirror", ["registry/dify", "registry", "mirror-of-ours/a/b"])
def test_a_mirror_that_docker_takes_for_docker_hub_is_refused(mirror: str) -> None:
    with pytest.raises(pulumi.RunError, match=r"dify:mirror: .*Docker Hub.*registry:443/dify"):
        settings({**MIRROR, "mirror": mirror})


@pytest.mark.parametrize("mirror", ["localhost/dify", "localhost:5000", "registry:5000/x", "r.example.com"])
def test_a_mirror_with_a_host_is_taken(mirror: str) -> None:
    assert settings({**MIRROR, "mirror": mirror}).mirror == mirror


@pytest.mark.parametrize("plain", [{"images": "registry", "vectorStore": "weaviate"}, MIRROR])
@pytest.mark.parametrize("pins", [True, False])
def test_pins_decide_about_digests(plain: Mapping[str, Any], pins: bool) -> None:
    names = [one["name"] for one in run_program({**plain, "imagePins": pins}).of(IMAGE).values()]
    digests = [name for name in names if "@sha256:" in name]

    assert bool(digests) is pins
    assert len(names) > 8


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ({"images": "registry", "vectorStore": "weaviate", "imagePins": False}, "the registry decides what"),
        ({**MIRROR, "imagePins": False}, "registry.example.com:5000/dify decides what"),
        (MIRROR, ""),
        (PRELOADED, "by tag, as they are in the engine"),
        ({**PRELOADED, "imagePins": False}, "by tag, as they are in the engine"),
        ({"imagePins": False}, ""),
    ],
)
def test_what_goes_by_tag_is_said(
    plain: Mapping[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lines.append)
    monkeypatch.setattr(pulumi.log, "info", lines.append)
    monkeypatch.setattr(image_guard, "ids", lambda names: dict.fromkeys(names, "sha256:1"))
    found = settings(plain)

    monkeypatch.setenv("DOCKER_HOST", engine.DEFAULT_ADDRESS)
    monkeypatch.setattr("infra.guards.volumes.existing", lambda _names: {})
    monkeypatch.setattr("infra.guards.containers.existing", lambda _endpoint, _names: {})
    monkeypatch.setattr("infra.guards.ports.publishers", lambda _endpoint, _port: None)

    checks.check(found, RELEASES[found.release], "")

    assert [said in line for line in lines] == ([True] if said else [])


# Each release, each vector store and each option once: a run of the program is not cheap.
STACKS: list[tuple[str, str, dict[str, Any], dict[str, str]]] = [
    *((release, "weaviate", {}, {}) for release in RELEASES),
    (next(iter(RELEASES)), "qdrant", OAUTH, {}),
    (next(iter(RELEASES)), "pgvector", ACME, {}),
    (next(iter(RELEASES)), "weaviate", {"llm": LLM}, SECRETS),
]


def images_of(recorder: Recorder) -> set[str]:
    """Return the images of all containers; the mocks' ids are named after the resource."""
    return {one["image"] for one in recorder.of(CONTAINER).values()}


@pytest.mark.parametrize(("release", "store", "plain", "secrets"), STACKS)
def test_the_images_that_a_stack_needs_are_those_that_its_containers_run(
    release: str, store: str, plain: Mapping[str, Any], secrets: Mapping[str, str]
) -> None:
    chosen = {**plain, "release": release, "images": "preloaded", "vectorStore": store}
    found = settings(chosen, secrets)
    roles = image_needs.roles(image_needs.parts_of(found), RELEASES[release])

    run = images_of(run_program(chosen, secrets=secrets))

    # In mode preloaded every image has an id of its own, made from its name.
    assert run == {f"sha256:{reference(role, found, RELEASES[release])}" for role in roles}


def test_a_preloaded_stack_pulls_and_builds_nothing() -> None:
    recorder = run_program({**PRELOADED, **OAUTH})

    assert recorder.of(IMAGE) == {}
    gateway = recorder.of(CONTAINER)["gateway"]
    assert gateway["image"] == f"sha256:{local_name('gateway')}"
    assert not [name for name in images_of(recorder) if "@" in name]


def test_a_preloaded_stack_is_else_what_a_registry_makes() -> None:
    loaded, pulled = run_program(PRELOADED), run_program({**PRELOADED, "images": "registry"})

    def without_images(recorder: Recorder) -> dict[str, Any]:
        return {
            name: {key: value for key, value in one.items() if key != "image"}
            for name, one in recorder.of(CONTAINER).items()
        }

    assert without_images(loaded) == without_images(pulled)
    assert set(loaded.of(DYNAMIC)) == set(pulled.of(DYNAMIC))


def test_missing_images_are_named_with_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings({**PRELOADED, **OAUTH})
    release = RELEASES[found.release]
    api, gateway = loaded_name(release.images["api"]), local_name("gateway")
    monkeypatch.setattr(
        image_guard, "ids", lambda names: {name: "sha256:1" for name in names if name not in {api, gateway}}
    )

    [refusal] = image_guard.refusals(found, release, checks.EngineView(engine.chosen()))

    text = refusal.text(found.stack)
    assert "2 image(s) are not in the engine" in text
    assert f"  - {api}\n" in text
    assert f"--release {release.version} --vector-store weaviate --also gateway dify-images.tar" in text
    assert "dify-kit images load dify-images.tar" in text
    assert f"docker build --build-arg BASE=debian:trixie-slim --tag {gateway} gateway" in text


class _Engine:
    """An engine with a few images, or none that answers."""

    def __init__(self, images: Mapping[str, str], problem: Exception | None = None) -> None:
        self.asked: list[str] = []
        self._images = images
        self._problem = problem
        self.api = self

    def inspect_image(self, name: str) -> dict[str, str]:
        self.asked.append(name)
        if self._problem:
            raise self._problem
        if name not in self._images:
            raise docker.errors.ImageNotFound(name)
        return {"Id": self._images[name]}


def test_the_engine_is_asked_for_each_name(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine({"a:1": "sha256:1"})
    monkeypatch.setattr("infra.engine.client", lambda _timeout: engine)

    assert image_guard.ids(["a:1", "b:2"]) == {"a:1": "sha256:1"}
    assert engine.asked == ["a:1", "b:2"]


def test_an_engine_that_does_not_answer_is_no_engine_without_images(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine({}, docker.errors.DockerException("no such file"))
    monkeypatch.setattr("infra.engine.client", lambda _timeout: engine)

    with pytest.raises(pulumi.RunError, match="does not list its images: no such file"):
        image_guard.ids(["a:1"])


def log_in(directory: Path, host: str) -> Path:
    auth = base64.b64encode(b"operator:a-password-of-the-test").decode()
    file = directory / "config.json"
    file.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return file


def test_a_login_is_found_by_host_and_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    assert logged_in("registry.example.com:5000") is None
    file = log_in(tmp_path, "registry.example.com:5000")
    assert logged_in("registry.example.com:5000") == file
    assert logged_in("registry.example.com") is None
    assert logged_in("") is None


def test_a_helper_that_is_missing_is_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"r.example:1": "no-such-helper"}}))

    # The operator sees which program is missing.
    with pytest.warns(UserWarning, match="docker-credential-no-such-helper not installed"):
        assert logged_in("r.example:1") is None


def test_a_mirror_is_asked_with_the_operators_login_and_nobody_is_told_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    file = log_in(tmp_path, "registry.example.com:5000")
    # Not the settings of another test: a run is kept by them.
    chosen = {**MIRROR, **OAUTH, "logLevel": "WARNING"}

    recorder = run_program(chosen)

    [provider] = recorder.of(PROVIDER).values()
    [login] = json.loads(provider["registryAuth"])
    assert {**login} == {"address": "registry.example.com:5000", "configFile": str(file)}
    assert "a-password-of-the-test" not in repr(recorder.resources)
    images = [one for one in recorder.resources if one.type == IMAGE]
    assert images
    assert all(("mirror" in one.provider) is ("build" not in one.inputs) for one in images)


def test_without_a_login_pulumis_own_provider_pulls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    recorder = run_program({**MIRROR, **OAUTH, "logLevel": "ERROR"})

    assert recorder.of(PROVIDER) == {}
    assert recorder.of(IMAGE)["debian"]["name"] == (
        f"registry.example.com:5000/dify/debian:trixie-slim@{BASE.digest}"
    )


def test_only_a_mirror_with_own_images_holds_the_base_image() -> None:
    release = RELEASES["1.17.1"]
    plain = image_needs.Parts(vector_store="weaviate")
    with_gateway = image_needs.Parts(vector_store="weaviate", optional=frozenset({"gateway"}))

    assert BASE_ROLE not in image_needs.roles_to_copy(plain, release)
    copied = image_needs.roles_to_copy(with_gateway, release)
    assert BASE_ROLE in copied
    assert not own_roles() & set(copied)


def test_init_looks_for_the_images_of_a_plain_stack() -> None:
    from dify_kit.stack.create import loaded_names  # noqa: PLC0415  # a command line's own

    found = settings(PRELOADED)
    release = RELEASES[found.release]
    roles = image_needs.roles(image_needs.parts_of(found), release)

    assert loaded_names(release, "weaviate") == sorted({reference(role, found, release) for role in roles})
