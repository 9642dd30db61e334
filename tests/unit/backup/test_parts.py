"""What an archive holds of a stack besides its data, and where an archive goes."""

import errno
import json
import os
import stat
import tarfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dify_kit.backup import moving, settings_part, state_part, writing
from dify_kit.backup.postgres import Rows
from dify_kit.backup.settings_part import SECRET
from dify_kit.errors import KitError
from dify_kit.workspace import files as stack_files
from dify_kit.workspace import secrets
from dify_kit.workspace.files import StackFiles
from infra.engine.cluster import Workload
from infra.settings.kubernetes import Kubernetes
from infra.settings.routes import Routes

NOW = datetime(2026, 11, 30, 7, 30, tzinfo=UTC)
CONFIG: dict[str, Any] = {
    "dify:release": "1.17.1",
    "dify:secretKey": {SECRET: "s" * 42},
    "dify:llmKeys": {"holysheep": {SECRET: "hs-1"}, "openai": [{SECRET: "sk-ü"}]},
    "dify:llm": {"enabled": True, "upstreams": {"own": {"caFile": ""}}},
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackFiles:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.setattr(stack_files, "CHECKOUT", checkout)
    return StackFiles.open("dev", {"DIFY_KIT_HOME": str(tmp_path / "home")})


# settings


def test_secrets_go_from_one_passphrase_to_another(files: StackFiles) -> None:
    for passphrase in ("of the old machine", "of the new one"):
        files.stored.write_text(yaml.safe_dump(settings_part.sealed_document(CONFIG, passphrase)))
        environment = {"PULUMI_CONFIG_PASSPHRASE": passphrase}

        secrets.check(files, environment)
        assert settings_part.plain_settings(files, environment) == CONFIG
        for text in ("s" * 42, "hs-1", "sk-"):
            assert text not in files.stored.read_text()
        with pytest.raises(KitError, match="the passphrase does not fit"):
            settings_part.plain_settings(files, {"PULUMI_CONFIG_PASSPHRASE": "another"})


def test_settings_without_a_passphrase_cannot_be_backed_up(files: StackFiles) -> None:
    document = settings_part.sealed_document(CONFIG, "x")
    files.stored.write_text(yaml.safe_dump({**document, "secretsprovider": "awskms://key"}))

    with pytest.raises(KitError, match="another secrets provider"):
        settings_part.plain_settings(files, {"PULUMI_CONFIG_PASSPHRASE": "x"})


def test_the_engine_of_a_machine_stays_out(files: StackFiles) -> None:
    document = settings_part.sealed_document({**CONFIG, "docker:host": "ssh://x@y"}, "x")
    files.stored.write_text(yaml.safe_dump(document))

    assert settings_part.plain_settings(files, {"PULUMI_CONFIG_PASSPHRASE": "x"}) == CONFIG


def test_readable_settings_have_no_marks() -> None:
    assert settings_part.readable(CONFIG)["dify:llmKeys"] == {"holysheep": "hs-1", "openai": ["sk-ü"]}  # type: ignore[index]
    assert settings_part.holds_secret(CONFIG["dify:llmKeys"])
    assert not settings_part.holds_secret(CONFIG["dify:llm"])


def test_files_that_settings_name_come_along(tmp_path: Path) -> None:
    apps, ca = tmp_path / "apps", tmp_path / "ca.pem"
    (apps / "deep").mkdir(parents=True)
    (apps / "deep" / "a.yml").write_text("app")
    ca.write_text("pem")
    config: dict[str, Any] = {
        "dify:appsDir": str(apps),
        "dify:llm": {"upstreams": {"own": {"caFile": str(ca)}, "other": {"caFile": str(tmp_path / "gone")}}},
        "dify:publicUrl": str(ca),
    }
    target = BytesIO()

    places = settings_part.files_tar(config, target)
    there = json.loads(json.dumps(config))
    settings_part.extract_files(target.getvalue(), places, there, tmp_path / "home")

    assert list(places.values()) == [["dify:appsDir"], ["dify:llm", "upstreams", "own", "caFile"]]
    assert Path(there["dify:appsDir"], "deep", "a.yml").read_text() == "app"
    own = Path(there["dify:llm"]["upstreams"]["own"]["caFile"])
    assert (own.read_text(), stat.S_IMODE(own.stat().st_mode)) == ("pem", 0o600)
    assert own.is_relative_to(tmp_path / "home")
    assert there["dify:llm"]["upstreams"]["other"] == config["dify:llm"]["upstreams"]["other"]
    assert there["dify:publicUrl"] == str(ca)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "files/../../evil", "files/1/../../../evil"])
def test_a_file_that_leaves_its_directory_is_refused(tmp_path: Path, name: str) -> None:
    evil = BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))

    with pytest.raises(KitError, match="leads out"):
        settings_part.extract_files(evil.getvalue(), {}, {}, tmp_path / "home")
    assert not (tmp_path / "evil").exists()


# state

OLD, NEW = "urn:pulumi:old::dify::", "urn:pulumi:new::dify::"
PYTHON = "pulumi:providers:pulumi-python::default"


def resource(stack: str, kind: str, name: str, **parts: Any) -> dict[str, Any]:
    return {"urn": f"urn:pulumi:{stack}::dify::{kind}::{name}", "type": kind.rpartition("$")[2], **parts}


def old_state() -> list[dict[str, Any]]:
    root = f"{OLD}pulumi:pulumi:Stack::dify-old"
    apps = f"{OLD}dify-kit:tiers:Apps::apps"
    dynamic = "pulumi-python:dynamic:Resource"
    ready = f"{OLD}{dynamic}::api-ready"
    access = {"console_url": "http://localhost", "container": "dify-old-api"}
    return [
        resource("old", "pulumi:pulumi:Stack", "dify-old"),
        resource("old", "pulumi:providers:pulumi-python", "default", id="old-provider"),
        resource(
            "old", "docker:index/container:Container", "api", parent=root, inputs={"name": "dify-old-api"}
        ),
        resource("old", dynamic, "api-ready", parent=root, inputs={"container": "0123"}),
        resource("old", "dify-kit:tiers:Apps", "apps", parent=root),
        resource(
            "old",
            f"dify-kit:tiers:Apps${dynamic}",
            "admin",
            parent=apps,
            provider=f"{OLD}{PYTHON}::old-provider",
            dependencies=[ready],
            propertyDependencies={"container": [ready], "email": None},
            inputs=access,
            outputs=dict(access),
        ),
    ]


def settings_of(stack: str, kubernetes: Kubernetes | None = None) -> Any:
    return SimpleNamespace(stack=stack, kubernetes=kubernetes)


CLUSTER = Kubernetes(
    kubeconfig=Path("/k"),
    context="c",
    namespace="dify-new",
    storage_class="",
    shared_storage_class="",
    volume_gigabytes=1,
    service_type="ClusterIP",
    node_port=0,
    external_traffic_policy="Local",
    replicas={},
    autoscale={},
    routes=Routes(),
    image_pull_secret="",
    registry="",
)


def test_what_names_a_container_names_it_on_the_new_platform() -> None:
    to_cluster = moving.references(settings_of("new", CLUSTER))
    to_engine = moving.references(settings_of("other"))

    moved = to_cluster("dify-a-plugin-daemon")
    assert Workload.parse(moved).kind == "Deployment"
    assert Workload.parse(moved).name == "plugin-daemon"
    assert Workload.parse(to_cluster("dify-a-db-postgres")).kind == "StatefulSet"
    assert to_engine(moved) == "dify-other-plugin-daemon"
    assert to_engine("dify-new-api") == "dify-other-api"
    assert to_engine("dify-new-gateway-redis") == "dify-other-gateway-redis"
    assert to_engine("of no service") == "of no service"


def test_settings_of_one_platform_stay_behind_and_the_stacks_own_move() -> None:
    config = {
        "dify:publicUrl": "https://dify.example.com",
        "dify:bindAddress": "127.0.0.1",
        "dify:resources": {"api": {"memory": 4096, "pids": 500}, "web": {"memory": 512}},
    }

    found, lines = moving.moved(config, "kubernetes")

    assert found == {
        "dify:platform": "kubernetes",
        "dify:publicUrl": "https://dify.example.com",
        "dify:resources": {"api": {"memory": 4096}, "web": {"memory": 512}},
    }
    assert len(lines) == 2
    back, left = moving.moved({**found, "dify:kubernetes": {"context": "c"}}, "docker")
    assert back == {**found, "dify:platform": "docker"}
    assert left == ["dify:kubernetes is left out: it is a setting of dify:platform kubernetes"]
    assert moving.moved(config, "docker") == (config, [])


def test_the_platform_is_the_one_that_is_asked_for_or_the_archives() -> None:
    archived = {"dify:platform": "kubernetes"}

    assert moving.platform_of({}, [], {}) == "docker"
    assert moving.platform_of({}, [], archived) == "kubernetes"
    assert moving.platform_of({"platform": None}, [], archived) == "docker"
    assert moving.platform_of({}, [(("platform",), "docker")], archived) == "docker"


def test_what_is_of_dify_moves_to_another_stack_and_no_container_does() -> None:
    kept = state_part.kept({"resources": old_state()})
    there = [
        resource("new", "pulumi:pulumi:Stack", "dify-new"),
        resource("new", "pulumi:providers:pulumi-python", "default", id="new-provider"),
        resource("new", "docker:index/container:Container", "db-postgres"),
    ]

    merged = state_part.merged(
        {"resources": there, "x": 1},
        kept,
        old="old",
        new="new",
        reference=moving.references(settings_of("new")),
    )

    assert [one["urn"].rpartition("::")[2] for one in kept] == ["apps", "admin"]
    added = merged["resources"][3:]
    apps, admin = added
    assert merged["x"] == 1
    assert apps["parent"] == f"{NEW}pulumi:pulumi:Stack::dify-new"
    assert admin["parent"] == apps["urn"] == f"{NEW}dify-kit:tiers:Apps::apps"
    assert admin["provider"] == f"{NEW}{PYTHON}::new-provider"
    assert (admin["dependencies"], admin["propertyDependencies"]) == ([], {"container": [], "email": []})
    assert admin["inputs"]["container"] == admin["outputs"]["container"] == "dify-new-api"
    assert "old" not in json.dumps(added)


def test_a_resource_that_is_there_already_is_not_added_again() -> None:
    kept = state_part.kept({"resources": old_state()})

    merged = state_part.merged(
        {"resources": old_state()},
        kept,
        old="old",
        new="old",
        reference=moving.references(settings_of("old")),
    )

    assert merged["resources"] == old_state()


# dumps

DUMP = rb"""
CREATE TABLE public.a (id integer, t text);
COPY public.a (id, t) FROM stdin;
1	COPY public.b (x) FROM stdin;
2	a\\.b
3	\\.
\.


COPY public."We ""ird. (name" (x) FROM stdin;
\.
COPY public.none  FROM stdin;


\.
SELECT 1;
"""


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_rows_of_a_dump_are_counted_wherever_it_is_cut(size: int) -> None:
    rows = Rows()
    for at in range(0, len(DUMP), size):
        rows.feed(DUMP[at : at + size])

    assert rows.tables == {"public.a": 3, 'public."We ""ird. (name"': 0, "public.none": 2}


# where it goes


def test_an_archive_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    target = writing.target_of(str(tmp_path), "dev", NOW)
    assert target == tmp_path / "dify-dev-20261130-073000.dify-backup"

    with writing.written(target) as stream:
        stream.write(b"content")
        assert not target.exists()
        [draft] = tmp_path.iterdir()
        assert stat.S_IMODE(draft.stat().st_mode) == 0o600

    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"content", 0o600)


def write(target: Path, problem: BaseException) -> None:
    """Begin an archive that a problem ends."""
    with writing.written(target) as stream:
        stream.write(b"content")
        raise problem


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), KitError("x"), ValueError("x")])
def test_whatever_ends_a_backup_leaves_nothing(tmp_path: Path, problem: BaseException) -> None:
    with pytest.raises(type(problem)):
        write(tmp_path / "a", problem)

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_what_was_written_is_removed(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(KitError, match="No space left on device; what was written is removed") as caught:
        write(tmp_path / "a", full)

    assert "--to" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(KitError, match="appeared meanwhile"), writing.written(target):
        target.write_text("of another")

    assert [path.read_text() for path in tmp_path.iterdir()] == ["of another"]


def test_a_target_that_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    for given, message in (("there", "exists already"), ("no/such/a", "there is no directory")):
        with pytest.raises(KitError, match=message):
            writing.target_of(str(tmp_path / given), "dev", NOW)
    with (
        pytest.raises(KitError, match="cannot be written: Not a directory"),
        writing.written(tmp_path / "there" / "a"),
    ):
        pass
