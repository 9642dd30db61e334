"""What a stack must hold over its life. Every test leaves the stack as it found it: deployed and healthy."""

import ipaddress
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import httpx
import pytest

from infra.catalogue.addresses import SPECIAL_PURPOSE
from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from infra.engine import host_addresses
from infra.resources.console_client import NOTES
from support.stacks import PYTEST, Stack, settings_changed, wait_until
from tests.integration.containers import printed
from tests.integration.reachability import (
    FORBIDDEN,
    UNREACHABLE,
    answers_of_proxy,
    host_listener,
    host_targets,
    inside_only,
    networks_of,
    reached_from,
)

CANARY_KEYS = ("canaryKey", "canaryNodesKey", "canaryDatasetKey")
# A service whose start the stand-in refuses, as Dify does: the value is no wrong one by itself.
BROKEN = "extraEnv.{service}.OPENDAL_FS_ROOT"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of these tests alone: it is taken down, broken and repaired for minutes."""
    stack = Stack(home=tmp_path_factory.mktemp("home"))
    try:
        created = stack.init(**{"cors-origin": "https://app.example.com"})
        assert created.code == 0, created.output
        stack.first = stack.up()
        yield stack
    finally:
        stack.remove()


def chat(stack: Stack, key: str, query: str, **more: str) -> httpx.Response:
    return httpx.post(
        f"{stack.url}/v1/chat-messages",
        headers={"Authorization": f"Bearer {key}"},
        json={"inputs": {}, "query": query, "user": "integration", "auto_generate_name": False} | more,
        timeout=30,
    )


def test_first_up_warns_of_nothing_and_notes_the_keys(stack: Stack) -> None:
    assert stack.first is not None
    noted = printed(stack.container("api"), ["ls", NOTES]).split()

    assert [line for line in stack.first.output.splitlines() if line.startswith("  ! ")] == []
    # One for each app of the stack, those of the smoke tests among them, and one of the knowledge API.
    assert len(noted) == 4
    assert not [name for name in noted if name.endswith(".new")]


def test_second_up_changes_nothing(stack: Stack) -> None:
    before = stack.containers()
    started = {name: stack.container(name).attrs["State"]["StartedAt"] for name in before}

    stack.up()

    assert stack.containers() == before
    assert {name: stack.container(name).attrs["State"]["StartedAt"] for name in before} == started
    history = json.loads(stack.pulumi("stack", "history", "--json", "--page-size", "1").stdout)
    assert set(history[0]["resourceChanges"]) == {"same"}


def test_preview_shows_no_change(stack: Stack) -> None:
    assert stack.steps("--refresh") == {}


def test_what_was_removed_or_stopped_by_hand_is_drift_and_only_that_is_repaired(stack: Stack) -> None:
    before = stack.containers()
    stack.container("web").remove(force=True)

    drift = stack.steps("--refresh")
    stack.container("worker").stop(timeout=5)
    stack.up()

    gone = {"web", "web-pids", "web-ready"}
    assert gone <= set(drift)
    assert not set(drift) - gone - {f"dify-{stack.name}"}
    after = stack.containers()
    assert {name for name in after if after[name] != before[name]} - {"worker"} == {"web"}
    assert stack.container("worker").attrs["State"]["Status"] == "running"


def test_service_that_fails_to_start_fails_every_up_until_mended(stack: Stack) -> None:
    with settings_changed(stack, {BROKEN.format(service="worker"): ""}):
        first = stack.try_up()
        second = stack.try_up()

        for failed in (first, second):
            assert failed.code == 1
            # "with code 1", or "and was started again" when it was asked a moment later.
            assert re.search(r"worker: exited (with code [1-9]|and was started again)", failed.output)
            assert "OPENDAL_FS_ROOT" in failed.output, "the last log lines are shown"
            assert "Traceback" not in failed.output
    stack.up()
    assert stack.container("worker").attrs["State"]["Status"] == "running"


def test_failed_migration_leaves_api_running_and_is_tried_again(stack: Stack) -> None:
    api = stack.container("api")
    with settings_changed(stack, {BROKEN.format(service="migration"): ""}):
        failed = stack.try_up()
        again = stack.try_up()

        assert (failed.code, again.code) == (1, 1)
        assert "migration: exited with code" in failed.output
        assert stack.container("api").id == api.id
        assert httpx.get(f"{stack.url}/console/api/setup").status_code == 200
    stack.up()
    assert stack.container("migration").attrs["State"]["ExitCode"] == 0


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("release", "1.14.2", "migrated by a newer Dify"),
        ("images", "registry", "was made with dify:images local"),
    ],
)
def test_settings_that_do_not_fit_the_volumes_are_refused(
    stack: Stack, setting: str, value: str, reason: str
) -> None:
    before = stack.containers()
    old = json.loads(stack.pulumi("config", "--json").stdout)[f"dify:{setting}"]["value"]
    stack.set_config(setting, value)
    try:
        refused = stack.try_up()

        assert refused.code == 1
        assert reason in refused.output
        after = stack.containers()
        assert after["db-postgres"] == before["db-postgres"]
        assert after["api"] == before["api"]
    finally:
        stack.set_config(setting, old)


def test_data_survives_down_and_up(stack: Stack) -> None:
    key = stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]
    first = chat(stack, key, "remember me").json()

    stack.down()
    assert stack.containers() == {}
    assert len(stack.volumes()) >= 5
    stack.up()

    key = stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]
    messages = httpx.get(
        f"{stack.url}/v1/messages",
        params={"user": "integration", "conversation_id": first["conversation_id"]},
        headers={"Authorization": f"Bearer {key}"},
    ).json()
    assert [message["query"] for message in messages["data"]] == ["remember me"]


def test_no_published_default_secret_anywhere(stack: Stack, tmp_path: Path) -> None:
    rendered = stack.kit("render", "--stack", stack.name, "--out", str(tmp_path / "out"))
    assert rendered.code == 0, rendered.output
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files
    texts = {str(path): path.read_text(encoding="utf-8") for path in files}
    for service in stack.containers():
        texts[service] = json.dumps(stack.container(service).attrs["Config"])

    found = {
        (where, default) for where, text in texts.items() for default in PUBLISHED_DEFAULTS if default in text
    }

    assert found == set()


def test_edge_knows_no_secret(stack: Stack) -> None:
    inspected = json.dumps(stack.container("nginx").attrs)
    config = json.loads(stack.pulumi("config", "--json", "--show-secrets").stdout)
    values = {entry["value"] for entry in config.values() if entry["secret"]}

    assert len(values) >= 10
    assert [value for value in values if value in inspected] == []


def test_secrets_are_readable_nowhere_on_disk(stack: Stack) -> None:
    config = json.loads(stack.pulumi("config", "--json", "--show-secrets").stdout)
    keys = stack.outputs(secrets_too=True)
    values = [entry["value"] for entry in config.values() if entry["secret"]]
    canaries = [keys[name] for name in CANARY_KEYS]
    values += [*canaries, *keys["appKeys"].values()]
    texts = [path.read_bytes() for path in stack.home.rglob("*") if path.is_file()]

    assert len(texts) > 3
    assert [value for value in values if any(value.encode() in text for text in texts)] == []
    assert [
        path for path in stack.home.rglob("*") if path.stat().st_mode & 0o077 and path.parent == stack.home
    ] == []
    masked = stack.outputs()
    assert {masked[name] for name in ("appKeys", *CANARY_KEYS)} == {"[secret]"}


def test_sandbox_reaches_neither_database_nor_redis(stack: Stack) -> None:
    data = docker.from_env().networks.get(f"dify-{stack.name}-data")
    data.reload()
    address = {one["Name"]: one["IPv4Address"].split("/")[0] for one in data.attrs["Containers"].values()}

    for service, port in (("db-postgres", 5432), ("redis", 6379)):
        target = address[f"dify-{stack.name}-{service}"]
        script = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{target}/{port}'"
        reached = stack.container("api").exec_run(["bash", "-c", script]).exit_code
        blocked = stack.container("sandbox").exec_run(["bash", "-c", script]).exit_code
        assert (reached, blocked != 0) == (0, True)


def test_no_service_inside_reaches_the_host(stack: Stack) -> None:
    inside = inside_only(stack)
    running = {name for name in stack.containers() if stack.container(name).attrs["State"]["Running"]}

    with host_listener() as port:
        targets = host_targets(stack, port)
        with ThreadPoolExecutor(max_workers=4) as pool:
            found = pool.map(lambda service: reached_from(stack, service, targets), running)
            reached = dict(zip(running, found, strict=True))

    assert {"db-postgres", "redis", "pgvector", "sandbox", "local-sandbox"} == inside
    assert {service: reached[service] for service in inside} == {service: [] for service in inside}
    # The listener is there: who has a way out finds it, as anything else outside.
    assert {service for service in running if not reached[service]} == inside


def test_sandbox_reaches_what_it_needs_and_no_other_service(stack: Stack) -> None:
    networks = networks_of(stack)
    services = {
        name: stack.container(name).attrs["NetworkSettings"]["Networks"]
        for name in stack.containers()
        if stack.container(name).attrs["State"]["Running"]
    }
    listening = {
        "api": 5001,
        "api-websocket": 5001,
        "plugin-daemon": 5002,
        "web": 3000,
        "nginx": 8080,
        "agent-backend": 5050,
        "local-sandbox": 5004,
        "db-postgres": 5432,
        "redis": 6379,
        "ssrf-proxy": 3128,
        "agent-ssrf-proxy": 3128,
        "sandbox": 8194,
    }
    targets = {
        service: [(service, port), *((one["IPAddress"], port) for one in services[service].values())]
        for service, port in {**listening, "plugin-daemon": 5003}.items()
    }
    targets["plugin-daemon"] += [(host, 5002) for host, _ in targets["plugin-daemon"]]

    def open_to(service: str) -> set[str]:
        answered = reached_from(stack, service, [one for each in targets.values() for one in each])
        return {name for name, each in targets.items() if set(each) & set(answered)} - {service}

    # api runs code nodes there, so the two share a network; upstream's has the plugin daemon besides.
    assert open_to("sandbox") == {"api", "ssrf-proxy"}
    assert open_to("local-sandbox") == {"agent-backend", "agent-ssrf-proxy"}
    assert "sandbox" in open_to("api")
    assert networks["app"]["Internal"] is False


@pytest.mark.parametrize("service", ["ssrf-proxy", "agent-ssrf-proxy"])
def test_proxies_refuse_every_special_address_in_both_families(stack: Stack, service: str) -> None:
    networks = [ipaddress.ip_network(one) for one in SPECIAL_PURPOSE]
    refused = [str(end) for one in networks for end in (one[0], one[-1])]
    refused += ["::1", "::10.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:a00:1::1"]
    refused += [str(one.ip) for one in host_addresses.own_addresses() if not one.is_link_local]
    tried = ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "::ffff:8.8.8.8"]

    answers = answers_of_proxy(stack, service, [*refused, *tried])

    assert {host: answers[host] for host in refused if answers[host] != FORBIDDEN} == {}
    # It has no network here: what it lets through comes to nothing.
    assert {answers[host] for host in tried} == {UNREACHABLE}


def test_every_container_may_have_so_many_processes_and_no_more(stack: Stack) -> None:
    limits = {
        name: stack.container(name).attrs["HostConfig"]["PidsLimit"] or 0 for name in stack.containers()
    }
    # dash gives up at the first fork that fails; bash would try again for minutes.
    bomb = f"i=0; while [ $i -lt {limits['sandbox'] + 10} ]; do sleep 30 & i=$((i+1)); done; echo all of them"

    told = stack.container("sandbox").exec_run(["dash", "-c", bomb])

    assert [name for name, limit in limits.items() if not 0 < limit <= 10_000] == []
    assert b"annot fork" in told.output
    assert b"all of them" not in told.output
    assert httpx.get(f"{stack.url}/console/api/setup").status_code == 200
    stack.container("sandbox").restart(timeout=5)
    wait_until(
        lambda: stack.well("sandbox"),
        seconds=120,
        what="the sandbox healthy again",
    )
    assert stack.container("sandbox").attrs["HostConfig"]["PidsLimit"] == limits["sandbox"]


def test_init_never_overwrites(stack: Stack) -> None:
    before = stack.pulumi("config", "--json", "--show-secrets").stdout

    refused = stack.init()

    assert refused.code != 0
    assert stack.pulumi("config", "--json", "--show-secrets").stdout == before


def test_init_refuses_volumes_of_unknown_secrets(stack: Stack, tmp_path: Path) -> None:
    stranger = Stack(home=tmp_path / "other-home", name=stack.name, port=stack.port)
    link = Path(f"Pulumi.{stack.name}.yaml")
    target = link.readlink()
    link.unlink()
    try:
        refused = stranger.init()
    finally:
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    assert refused.code != 0
    assert f"dify-{stack.name}-postgres" in refused.output


def test_plain_pulumi_up_works(stack: Stack) -> None:
    done = stack.pulumi("up", "--yes", "--skip-preview")

    assert done.code == 0, done.output[-4000:]


def test_smoke_tests_fail_without_a_stack(tmp_path: Path) -> None:
    nowhere = Stack(home=tmp_path / "empty")

    done = nowhere.smoke()

    assert done.code != 0
    assert PYTEST.exists()
    assert "passed" not in done.stdout.splitlines()[-1]
