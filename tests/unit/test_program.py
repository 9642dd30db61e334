"""The whole program against a recorder: what it declares for each release and mode, and what it never does."""

import re
from pathlib import Path
from typing import Any

import pulumi
import pytest

from dify_kit.stack.create import default
from infra.catalogue.images import local_builds, own_roles
from infra.catalogue.project import ROOT
from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import Selection, jobs, of_part
from infra.catalogue.service import Part, Tier
from infra.platforms.docker import go_duration
from infra.platforms.images import pulled_name
from support.configuration import configure
from tests.unit.recording import CONTAINER, DYNAMIC, IMAGE, NETWORK, PROGRAM, VOLUME, Recorder, run_program

REGISTRY: dict[str, Any] = {"images": "registry", "vectorStore": "weaviate"}


def containers(plain: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    return run_program(plain).of(CONTAINER)


def networks_of(container: dict[str, Any]) -> set[str]:
    return {one["name"].removeprefix("dify-unit-") for one in container.get("networksAdvanced", [])}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("store", ["pgvector", "weaviate", "qdrant"])
def test_exactly_the_services_of_the_release_are_declared(release: str, store: str) -> None:
    found = containers({"release": release, "images": "registry", "vectorStore": store})

    assert set(found) == {*RELEASES[release].services, *of_part(Part.STACK), store}


def test_a_local_stack_is_complete_and_nothing_else_is_declared() -> None:
    recorder = run_program()
    chosen = Selection(release=RELEASES[str(default("release"))].services, vector_store="pgvector")
    builds = {local_builds()[one.image] for one in chosen.services().values()}

    assert {kind: len(recorder.of(kind)) for kind in (CONTAINER, NETWORK, VOLUME, IMAGE)} == {
        CONTAINER: len(chosen.services()),
        NETWORK: len(chosen.networks()),
        VOLUME: sum(len(chosen.volumes(tier)) for tier in Tier),
        IMAGE: len(builds),
    }
    ready = {name for name in recorder.of(DYNAMIC) if name.endswith("-ready")}
    assert ready == {f"{name}-ready" for name in recorder.of(CONTAINER)}
    limits = {name for name in recorder.of(DYNAMIC) if name.endswith("-pids")}
    assert limits == {f"{name}-pids" for name in recorder.of(CONTAINER)}
    assert set(recorder.of(DYNAMIC)) - ready - limits == {
        "admin",
        "app-echo-chat",
        "key-echo-chat",
        "app-canary",
        "key-canary",
        "app-canary-nodes",
        "key-canary-nodes",
        "key-canary-knowledge",
        "nginx-config",
        "db-postgres-password",
        "pgvector-password",
        "redis-config",
        "redis-only-password",
    }


def test_only_the_edge_publishes_a_port_and_on_this_machine_only() -> None:
    published = {name: one["ports"] for name, one in containers().items() if one.get("ports")}

    assert published == {"nginx": [{"internal": 8080, "external": 8080, "ip": "127.0.0.1"}]}


@pytest.mark.parametrize("plain", [{}, REGISTRY])
def test_every_container_is_limited(plain: dict[str, Any]) -> None:
    for name, one in containers(plain).items():
        assert one["securityOpts"] == ["no-new-privileges:true"], name
        assert one["memory"] == one["memorySwap"] > 0, name
        assert "privileged" not in one, name
        assert "networkMode" not in one or one["networkMode"] == "none", name
        assert one["logOpts"] == {"max-size": "10m", "max-file": "3"}, name


@pytest.mark.parametrize("plain", [{}, REGISTRY, {"celeryWorkers": 8, "apiWorkers": 8}])
def test_processes_of_every_container_are_limited(plain: dict[str, Any]) -> None:
    recorder = run_program(plain)
    declared = recorder.of(DYNAMIC)
    limits = {name: declared[f"{name}-pids"] for name in recorder.of(CONTAINER)}

    assert {name: one["container"] for name, one in limits.items()} == {name: f"{name}-id" for name in limits}
    assert all(64 <= one["limit"] <= 8192 for one in limits.values())
    assert limits["worker"]["limit"] > limits["redis"]["limit"]


def test_limit_of_processes_is_a_setting() -> None:
    declared = run_program({"resources": {"sandbox": {"pids": 99}}}).of(DYNAMIC)

    assert declared["sandbox-pids"]["limit"] == 99


def test_capabilities_are_dropped_wherever_the_service_works_without() -> None:
    kept = {name for name, one in containers().items() if one["capabilities"]["drops"] != ["ALL"]}

    # They isolate code of users and plugins by chroot and other users.
    assert kept == {"sandbox", "local-sandbox", "plugin-daemon"}
    for name, one in containers().items():
        # Raw sockets would go past the routes of a network that is closed to the host.
        assert one["capabilities"]["drops"] in (["ALL"], ["CAP_NET_RAW"]), name
        assert all(added.startswith("CAP_") for added in one["capabilities"].get("adds", [])), name
        assert "CAP_NET_RAW" not in one["capabilities"].get("adds", []), name


def test_everything_that_runs_on_has_a_health_check_and_jobs_have_none() -> None:
    for name, one in containers().items():
        assert ("healthcheck" in one) is (name not in jobs()), name
        assert one["mustRun"] is (name not in jobs()), name


def test_api_is_healthy_only_with_its_database() -> None:
    tests = containers()["api"]["healthcheck"]["tests"]

    assert tests[0] == "CMD"
    assert "/console/api/setup" in tests[-1]


def test_networks_isolate() -> None:
    found = containers()
    internal = {name: one["internal"] for name, one in run_program().of(NETWORK).items()}

    assert internal == {
        "app": False,
        "data": True,
        "ssrf_proxy": True,
        "agent_sandbox": True,
        "local_sandbox_proxy": True,
    }
    assert networks_of(found["sandbox"]) == {"ssrf_proxy"}
    assert networks_of(found["local-sandbox"]) == {"agent_sandbox", "local_sandbox_proxy"}
    assert networks_of(found["nginx"]) == networks_of(found["web"]) == {"app"}
    for name in ("db-postgres", "redis", "pgvector"):
        assert networks_of(found[name]) == {"data"}
    assert found["init-permissions"]["networkMode"] == "none"


@pytest.mark.parametrize("release", RELEASES)
def test_bridges_of_internal_networks_have_no_address_of_the_host(release: str) -> None:
    for name, one in run_program({"release": release}).of(NETWORK).items():
        if one["internal"]:
            assert one["options"]["com.docker.network.bridge.inhibit_ipv4"] == "true", name
            assert one["options"]["com.docker.network.enable_ipv6"] == "false", name
        else:
            assert not one.get("options"), name


@pytest.mark.parametrize("release", RELEASES)
def test_sandboxes_share_networks_with_those_alone_that_use_them(release: str) -> None:
    found = containers({"release": release})

    def neighbours(service: str) -> set[str]:
        shared = networks_of(found[service])
        return {name for name, one in found.items() if networks_of(one) & shared} - {service}

    assert neighbours("sandbox") == {"api", "worker", "ssrf-proxy"}
    if "local-sandbox" in found:
        assert neighbours("local-sandbox") == {"agent-backend", "agent-ssrf-proxy"}


def test_both_families_are_published_by_one_word() -> None:
    both = containers({"bindAddress": "*"})["nginx"]["ports"]

    assert both == [
        {"internal": 8080, "external": 8080, "ip": "0.0.0.0"},  # noqa: S104
        {"internal": 8080, "external": 8080, "ip": "::"},
    ]


def test_names_and_labels_carry_the_stack() -> None:
    recorder = run_program()

    for kind in (CONTAINER, NETWORK):
        for name, one in recorder.of(kind).items():
            assert one["name"] == f"dify-unit-{name}"
            assert {"label": "dify-kit.stack", "value": "unit"} in one["labels"]
    assert all(one["name"].startswith("dify-unit-") for one in recorder.of(VOLUME).values())


def test_two_stacks_share_no_name() -> None:
    def names(stack: str) -> set[str]:
        recorder = run_program(stack=stack)
        return {one["name"] for kind in (CONTAINER, NETWORK, VOLUME) for one in recorder.of(kind).values()}

    assert names("one").isdisjoint(names("two"))


def test_configuration_of_nginx_comes_to_the_running_container() -> None:
    recorder = run_program()
    nginx, config = recorder.of(CONTAINER)["nginx"], recorder.of(DYNAMIC)["nginx-config"]

    assert nginx["readOnly"] is True
    assert not nginx.get("uploads")
    assert config["container"] == "nginx-id"
    assert set(config["templates"]) == set(config["files"])
    assert f'"revision":"{config["revision"]}"' in config["files"]["live/revision.conf"]


def test_volumes_of_the_edge_hold_no_data_and_go_with_the_stack() -> None:
    volumes = run_program().of(VOLUME)

    assert volumes["volume-edge"]["labels"] == [{"label": "dify-kit.stack", "value": "unit"}]
    assert len(volumes["volume-postgres"]["labels"]) > 1


def test_secrets_that_a_service_takes_from_a_file_are_not_in_its_environment() -> None:
    found = containers()

    for name in ("db-postgres", "redis", "pgvector", "nginx"):
        assert not [env for env in found[name].get("envs", []) if "PASSWORD=" in env], name
    for upload in found["db-postgres"]["uploads"]:
        assert upload["permissions"] == "0400", upload["file"]
    # They come to the running container (tests/unit/test_rotation_resources.py).
    assert found["redis"]["uploads"] == []


def test_files_have_an_owner_only_where_the_image_chooses_the_user() -> None:
    # With both, the engine looks the uid up among the users of its host.
    for name, one in containers().items():
        if one.get("user"):
            assert not [upload for upload in one.get("uploads", []) if upload.get("owner")], name


@pytest.mark.parametrize("release", RELEASES)
def test_registry_images_are_pinned(release: str) -> None:
    names = [one["name"] for one in run_program({"release": release, **REGISTRY}).of(IMAGE).values()]

    assert len(names) == len(set(names))
    assert not [name for name in names if ":" not in name or name.split("@")[0].endswith(":latest")]
    assert f"langgenius/dify-api:{release}" in {name.split("@")[0] for name in names}


def test_mirror_prefixes_every_image() -> None:
    plain = {"images": "mirror", "mirror": "registry.example.com/dify", "vectorStore": "weaviate"}

    names = [one["name"] for one in run_program(plain).of(IMAGE).values()]

    assert names
    assert all(name.startswith("registry.example.com/dify/") for name in names)


def test_local_images_are_built_here_and_nothing_is_pulled() -> None:
    images = run_program().of(IMAGE)

    assert all(one["name"].startswith("dify-kit/") for one in images.values())
    for name, one in images.items():
        assert (PROGRAM.parent / one["build"]["context"] / "Dockerfile").is_file() or (
            Path(one["build"]["context"]) / "Dockerfile"
        ).is_file(), name
        assert one["triggers"]["context"] in one["name"]


def test_every_role_has_an_image_in_every_mode() -> None:
    for release in RELEASES.values():
        roles = (
            set(local_builds())
            if release.has("agent-backend")
            else set(local_builds()) - {"agent_backend", "local_sandbox"}
        )
        assert roles - own_roles() <= set(release.images)
    for directory, target in local_builds().values():
        dockerfile = (ROOT / directory / "Dockerfile").read_text(encoding="utf-8")
        assert target is None or f" AS {target}\n" in dockerfile


def test_images_build_with_the_classic_builder_and_with_buildkit() -> None:
    files = [ROOT / directory / "Dockerfile" for directory, _ in local_builds().values()]

    for file in files:
        text = file.read_text(encoding="utf-8")
        # Only BuildKit knows these; the classic builder of Debian's engine stops at them.
        assert not re.search(
            r"^(# ?syntax=|RUN\s+--|COPY\s+--(link|chmod|parents)|ADD\s+--)|<<", text, re.MULTILINE
        ), file


def test_digest_goes_into_the_pulled_name() -> None:
    image = RELEASES["1.17.0"].images["web"]

    assert pulled_name(image, "") == f"langgenius/dify-web:1.17.0@{image.digest}"
    assert pulled_name(image, "r.example:5000/x/").startswith(
        "r.example:5000/x/langgenius/dify-web:1.17.0@sha256:"
    )


def test_resources_of_the_settings_win() -> None:
    found = containers({"resources": {"api": {"memory": 4096, "cpus": 3.5}}})

    assert (found["api"]["memory"], found["api"]["cpus"]) == (4096, "3.5")
    assert found["web"]["cpus"] == "2.0"


def test_without_its_setting_there_is_no_key_of_the_knowledge_api() -> None:
    dynamic = run_program({"canaryKnowledge": False}).of(DYNAMIC)

    assert {name for name in dynamic if name.startswith("key-canary")} == {"key-canary", "key-canary-nodes"}


def test_without_canary_there_is_none() -> None:
    dynamic = run_program({"canary": False}).of(DYNAMIC)

    assert not [name for name in dynamic if "canary" in name]


@pytest.mark.parametrize(
    ("seconds", "text"), [(2, "2s"), (59, "59s"), (60, "1m0s"), (180, "3m0s"), (95, "1m35s")]
)
def test_durations_are_spelled_as_the_provider_reads_them_back(seconds: int, text: str) -> None:
    assert go_duration(seconds) == text


def test_bad_settings_declare_nothing() -> None:
    recorder = Recorder()
    pulumi.runtime.mocks.set_mocks(recorder, project="dify", stack="unit", preview=False)

    with pytest.raises(pulumi.RunError, match="dify:httpPort"):
        run_program({"httpPort": 0})

    assert recorder.resources == []
    configure()


def test_program_fits_one_screen_and_decides_nothing() -> None:
    lines = PROGRAM.read_text(encoding="utf-8").splitlines()

    assert len(lines) <= 45
    assert not [line for line in lines if line.startswith(("if ", "for ", "while ", "def "))]


def test_only_settings_read_pulumis_configuration() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "infra").rglob("*.py")
        if "pulumi.Config(" in path.read_text(encoding="utf-8")
    }

    assert readers == {"infra/__main__.py"}


def needed_by(recorder: Recorder, name: str) -> set[str]:
    """Return everything that exists before a resource is made or changed."""
    found: set[str] = set()
    open_ones = [name]
    while open_ones:
        for one in recorder.needs[open_ones.pop()] - found:
            found.add(one)
            open_ones.append(one)
    return found


@pytest.mark.parametrize(
    ("client", "servers"),
    [
        ("migration", {"db-postgres-password", "redis-config"}),
        ("plugin-daemon", {"db-postgres-password", "redis-config"}),
        ("agent-backend", {"redis-config", "local-sandbox-ready", "plugin-daemon-ready"}),
        ("api", {"sandbox-ready", "plugin-daemon-ready", "agent-backend-ready", "pgvector-password"}),
        ("worker", {"sandbox-ready", "plugin-daemon-ready", "agent-backend-ready", "pgvector-password"}),
        ("worker-beat", {"db-postgres-password", "redis-config"}),
        ("api-websocket", {"db-postgres-password", "redis-config"}),
    ],
)
def test_a_new_secret_reaches_its_servers_before_their_clients(client: str, servers: set[str]) -> None:
    assert servers - needed_by(run_program(), client) == set()


@pytest.mark.parametrize("store", ["weaviate", "qdrant"])
def test_a_new_key_of_the_vector_store_reaches_it_first(store: str) -> None:
    recorder = run_program({"images": "registry", "vectorStore": store})

    for client in ("api", "worker"):
        assert f"{store}-ready" in needed_by(recorder, client)


def test_redis_forgets_the_password_before_when_all_of_its_clients_have_the_new_one() -> None:
    recorder = run_program()
    clients = {
        name
        for name, one in recorder.of(CONTAINER).items()
        if any(line.startswith("REDIS_PASSWORD=") or "REDIS_URL=" in line for line in one.get("envs", []))
    }

    assert {"api", "worker", "plugin-daemon", "agent-backend"} <= clients
    assert {f"{name}-ready" for name in clients} - needed_by(recorder, "redis-only-password") == set()


def test_another_password_replaces_no_server_that_takes_it_while_it_runs() -> None:
    first = run_program()
    other = run_program(
        secrets={"postgresPassword": "another-password-1", "redisPassword": "another-password-2"}
    )

    for name in ("db-postgres", "pgvector", "redis"):
        before, after = (dict(one.of(CONTAINER)[name]) for one in (first, other))
        for ignored in first.ignored[name]:
            assert before.pop(ignored) != after.pop(ignored)
        assert before == after, name
    assert first.ignored["db-postgres"] == first.ignored["pgvector"] == ("uploads",)
    assert first.ignored["redis"] == ()
    declared = other.of(DYNAMIC)
    assert declared["db-postgres-password"]["password"] == declared["pgvector-password"]["password"]
    assert declared["db-postgres-password"]["password"] == "another-password-1"
    assert 'requirepass "another-password-2"' in declared["redis-config"]["config"]
    assert declared["redis-only-password"]["password"] == "another-password-2"
