"""Names of services: what they are, and that both spellings lead to the same one wherever a file may hold the other."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from infra.catalogue import releases
from infra.catalogue.names import compose_name, service_name, spellings, with_service_hosts
from infra.catalogue.releases import RELEASES, CatalogueError
from infra.catalogue.services import SERVICES
from support.configuration import settings
from tests.unit.recording import CONTAINER, DYNAMIC, VOLUME, run_program

FACTS = Path(__file__).parents[1] / "facts"
# RFC 1123, and what Kubernetes takes as the name of a Service.
LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
RENAMED = [name for name in SERVICES if "-" in name]
EVERYTHING: dict[str, Any] = {"oauth": {"enabled": True}}
NEWEST = next(iter(RELEASES))


def in_compose(text: str) -> str:
    """Return a catalogue file as one of an earlier version of the kit: services as the compose file names them."""
    for name in RENAMED:
        text = re.sub(rf"(?<![\w/-]){name}(?![\w/-])", compose_name(name), text)
        text = text.replace(f"//{name}:", f"//{compose_name(name)}:")
    return text


@pytest.mark.parametrize("service", SERVICES)
def test_name_is_a_label_of_dns(service: str) -> None:
    assert LABEL.fullmatch(service)


def test_services_of_the_compose_folder_are_found_by_its_own_names() -> None:
    facts = json.loads((FACTS / "compose-1.17-pre.json").read_text(encoding="utf-8"))
    renamed = {name: service_name(name) for name in facts["services"] if service_name(name) != name}

    assert renamed["db_postgres"] == "db-postgres"
    assert set(renamed.values()) == set(RENAMED) - {"gateway-redis", "data-proxy", "data-egress", "llm-edge"}
    assert {compose_name(ours): ours for ours in renamed.values()} == renamed
    assert service_name("db_mysql") == "db_mysql", "no service of the kit"


@pytest.mark.parametrize(
    ("variable", "value", "ours"),
    [
        ("PLUGIN_DAEMON_URL", "http://plugin_daemon:5002", "http://plugin-daemon:5002"),
        ("STUB", "http://agent_backend:5050/agent-stub", "http://agent-backend:5050/agent-stub"),
        ("HTTP_PROXY", "http://agent_ssrf_proxy:3128", "http://agent-ssrf-proxy:3128"),
        ("URL", "postgresql://user:db_postgres@db_postgres/api_websocket", None),
        ("DB_HOST", "db_postgres", "db-postgres"),
        ("UPSTREAM", "plugin_daemon:5002", "plugin-daemon:5002"),
        ("REDIS_KEY_PREFIX", "plugin_daemon", "plugin_daemon"),
        ("MYSQL_HOST", "db_mysql", "db_mysql"),
        ("URL", "http://my.plugin_daemon:5002", "http://my.plugin_daemon:5002"),
        ("URL", "http://plugin_daemon_2:5002", "http://plugin_daemon_2:5002"),
    ],
)
def test_hosts_in_values_get_the_kits_names_and_other_text_stays(
    variable: str, value: str, ours: str | None
) -> None:
    expected = "postgresql://user:db_postgres@db-postgres/api_websocket" if ours is None else ours

    assert with_service_hosts(variable, value) == expected


def test_catalogue_file_may_name_services_as_the_compose_file_does(tmp_path: Path) -> None:
    ours = RELEASES[NEWEST].file
    source = yaml.safe_load(ours.read_text(encoding="utf-8"))
    shared = source["variables"].get("same_as", NEWEST)
    for version in {NEWEST, shared}:
        text = in_compose((ours.parent / f"{version}.yaml").read_text(encoding="utf-8"))
        assert "  - plugin_daemon\n" in text
        (tmp_path / f"{version}.yaml").write_text(text, encoding="utf-8")

    found, known = releases.load(tmp_path / f"{NEWEST}.yaml"), RELEASES[NEWEST]

    assert (found.services, found.routes) == (known.services, known.routes)
    for service in known.services:
        assert found.variables(service) == known.variables(service), service
    assert found.variables("plugin-daemon")["DB_HOST"].compose == "db-postgres"


def test_variables_of_one_service_in_two_spellings_are_refused(tmp_path: Path) -> None:
    document = yaml.safe_load((RELEASES["1.14.2"].file).read_text(encoding="utf-8"))
    document["variables"]["plugin_daemon"] = {"A": {"type": "string"}}
    file = tmp_path / "1.14.2.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")

    with pytest.raises(CatalogueError, match=r"variables\.plugin-daemon: there twice"):
        releases.load(file)


def test_settings_of_a_service_may_name_it_in_either_spelling() -> None:
    old = settings(
        {"extraEnv": {"worker_beat": {"TZ": "UTC"}}, "resources": {"db_postgres": {"memory": 2048}}}
    )
    new = settings(
        {"extraEnv": {"worker-beat": {"TZ": "UTC"}}, "resources": {"db-postgres": {"memory": 2048}}}
    )

    assert dict(old.extra_env) == dict(new.extra_env) == {"worker-beat": {"TZ": "UTC"}}
    assert dict(old.resources) == dict(new.resources)
    assert old.resources["db-postgres"].memory == 2048


@pytest.mark.parametrize(
    "plain",
    [
        {"extraEnv": {"worker-beat": {"TZ": "UTC"}, "worker_beat": {"TZ": "CET"}}},
        {"resources": {"worker-beat": {"memory": 2048}, "worker_beat": {"memory": 1024}}},
    ],
)
def test_settings_of_one_service_in_two_spellings_are_refused(plain: Mapping[str, Any]) -> None:
    (key,) = plain

    with pytest.raises(pulumi.RunError, match=rf"dify:{key}\.worker_beat: .*two spellings"):
        settings(plain)


@pytest.mark.parametrize("release", RELEASES)
def test_resources_of_stacks_of_earlier_versions_are_adopted_by_their_names(release: str) -> None:
    recorder = run_program({**EVERYTHING, "release": release})
    former = {(one.type, one.name): one.former for one in recorder.resources}
    renamed = [name for name in recorder.of(CONTAINER) if "-" in name]

    assert {"db-postgres", "plugin-daemon", "gateway-redis"} <= set(renamed)
    for name in renamed:
        assert former[CONTAINER, name] == {compose_name(name)}
        for part in ("pids", "ready"):
            assert former[DYNAMIC, f"{name}-{part}"] == {f"{compose_name(name)}-{part}"}
    for (kind, name), others in former.items():
        if name.removesuffix("-pids").removesuffix("-ready") not in renamed:
            assert not others, (kind, name)


def test_services_answer_to_both_names_and_volumes_keep_theirs() -> None:
    recorder = run_program(EVERYTHING)

    for name, container in recorder.of(CONTAINER).items():
        assert container["name"] == f"dify-unit-{name}"
        for network in container.get("networksAdvanced", []):
            assert network["aliases"] == list(spellings(name))
    assert {"volume-gateway_redis", "volume-plugin_storage"} <= set(recorder.of(VOLUME))
