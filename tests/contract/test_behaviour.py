"""What a real Dify was seen to do, beyond single answers."""

import re
import secrets
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import docker
import httpx
import pytest

from infra.platforms.images import local_name
from support.stacks import wait_until
from tests.contract.instance import StackInstance
from tests.integration.containers import printed

# What each container of the stand-in refuses to start without, and what it says.
MISSING = [
    ("api", {"SECRET_KEY": ""}, "SECRET_KEY"),
    ("api", {"OPENDAL_FS_ROOT": ""}, "root is not specified"),
    ("api", {"SQLALCHEMY_POOL_SIZE": "many"}, "SQLALCHEMY_POOL_SIZE"),
    ("api", {"DB_PASSWORD": "not-the-password"}, "password"),
    ("api", {"REDIS_PASSWORD": "not-the-password"}, "redis"),
    ("worker", {"CELERY_BROKER_URL": ""}, "CELERY_BROKER_URL"),
    ("plugin-daemon", {"SERVER_KEY": ""}, "SERVER_KEY"),
    ("plugin-daemon", {"DB_PASSWORD": "not-the-password"}, "password"),
    (
        "agent-backend",
        {"DIFY_AGENT_SERVER_SECRET_KEY": "too-short"},
        "unpadded base64url of exactly 32 bytes",
    ),
    ("agent-backend", {"DIFY_AGENT_SERVER_SECRET_KEY": "A" * 43 + "="}, "unpadded base64url"),
    ("sandbox", {"API_KEY": ""}, "API_KEY"),
    ("local-sandbox", {"SHELLCTL_AUTH_TOKEN": ""}, "SHELLCTL_AUTH_TOKEN"),
    ("web", {"CONSOLE_API_URL": ""}, "CONSOLE_API_URL"),
]


@pytest.mark.parametrize(
    ("service", "changed", "said"), MISSING, ids=[f"{m[0]}-{next(iter(m[1]))}" for m in MISSING]
)
def test_service_refuses_to_start_and_says_why(
    instance: StackInstance, service: str, changed: dict[str, str], said: str
) -> None:
    running = instance.stack.container(service)
    environment = dict(line.split("=", 1) for line in running.attrs["Config"]["Env"]) | changed
    networks = list(running.attrs["NetworkSettings"]["Networks"])
    network = next((one for one in networks if one.endswith("-data")), networks[0])

    container = docker.from_env().containers.run(
        running.attrs["Config"]["Image"],
        environment={name: value for name, value in environment.items() if value},
        network=network,
        detach=True,
    )
    try:
        ended = container.wait(timeout=180)
        log = container.logs().decode()
    finally:
        container.remove(force=True)

    assert ended["StatusCode"] == 1, log
    assert said in log


def test_every_container_says_that_it_is_a_stand_in(instance: StackInstance) -> None:
    for service in ("api", "worker", "web", "sandbox", "plugin-daemon", "agent-backend", "local-sandbox"):
        log = instance.stack.container(service).logs().decode()
        assert "It is not Dify" in log, service
    assert "not Dify" in httpx.get(f"{instance.stack.url}/").text
    assert instance.stack.outputs()["standIn"] is True


def test_claimed_instance_cannot_be_claimed_again(instance: StackInstance) -> None:
    body = {"email": "stranger@example.com", "name": "stranger", "password": "stranger-1"}

    setup = instance.api.post("/console/api/setup", json=body)
    init = instance.api.post("/console/api/init", json={"password": "guess"})

    assert (setup.status_code, init.status_code) == (403, 403)


def test_console_needs_the_csrf_token(instance: StackInstance) -> None:
    answer = instance.console.get("/apps", headers={"X-CSRF-Token": "another"})

    assert answer.status_code == 401
    assert answer.json()["message"] == "CSRF token is missing or invalid."


def test_plain_password_is_refused(instance: StackInstance) -> None:
    answer = instance.api.post(
        "/console/api/login", json={"email": "nobody@example.com", "password": "plain text!"}
    )

    assert answer.status_code == 401
    assert (answer.json()["code"], answer.json()["message"]) == (
        "authentication_failed",
        "Invalid encrypted data",
    )


def test_account_is_locked_at_the_seventh_wrong_password(instance: StackInstance) -> None:
    body = {"email": "lock-me@example.com", "password": "d3Jvbmc="}

    answers = [instance.api.post("/console/api/login", json=body) for _ in range(8)]

    assert [answer.status_code for answer in answers] == [401] * 6 + [429] * 2
    assert answers[-1].json()["code"] == "email_code_login_limit"


def test_eleventh_key_is_refused(instance: StackInstance) -> None:
    app_id, _ = instance.chat_app()
    for _ in range(9):
        instance.key(app_id)

    eleventh = instance.console.post(f"/apps/{app_id}/api-keys")

    assert (eleventh.status_code, eleventh.json()["code"]) == (400, "max_keys_exceeded")


def test_deleted_key_is_refused_at_once(instance: StackInstance) -> None:
    app_id, key = instance.chat_app()
    key_id = instance.console.get(f"/apps/{app_id}/api-keys").json()["data"][0]["id"]
    assert instance.ask(key, "hello").status_code == 200

    instance.console.delete(f"/apps/{app_id}/api-keys/{key_id}")

    assert instance.ask(key, "hello").status_code == 401


def test_app_with_its_api_disabled_answers_403(instance: StackInstance) -> None:
    app_id, key = instance.chat_app()

    instance.console.post(f"/apps/{app_id}/api-enable", json={"enable_api": False})

    answer = instance.ask(key, "hello")
    assert (answer.status_code, answer.json()["message"]) == (403, "The app's API service has been disabled.")


def test_too_many_active_requests_are_a_400(instance: StackInstance) -> None:
    app_id, key = instance.chat_app()
    instance.console.put(f"/apps/{app_id}", json={"name": "limited", "max_active_requests": 1})

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(instance.ask, key, "/sleep 3")
        time.sleep(1)
        refused = instance.ask(key, "hello")

    assert busy.result().status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_param")
    assert "Too many requests" in refused.json()["message"]
    assert "retry-after" not in refused.headers


def test_failed_run_is_a_400_when_blocking_and_an_event_when_streaming(instance: StackInstance) -> None:
    _, key = instance.chat_app()

    blocking = instance.ask(key, "/fail on purpose")
    streaming = instance.ask(key, "/fail on purpose", response_mode="streaming")

    assert blocking.status_code == 400
    assert blocking.json()["message"].startswith("Run failed: ")
    assert streaming.status_code == 200
    assert '"event":"error"' in streaming.text


def test_lost_database_shows_everywhere_but_in_health(instance: StackInstance) -> None:
    database = instance.stack.container("db-postgres")
    database.stop(timeout=30)
    try:
        health = instance.api.get("/health")
        setup = instance.api.get("/console/api/setup")
    finally:
        database.start()

    assert (health.status_code, setup.status_code) == (200, 500)
    wait_until(
        lambda: instance.api.get("/console/api/setup").status_code == httpx.codes.OK,
        seconds=60,
        what="the database is back",
    )


def test_lost_worker_keeps_streams_away(instance: StackInstance) -> None:
    _, key = instance.chat_app()
    worker = instance.stack.container("worker")
    worker.pause()
    try:
        with pytest.raises(httpx.ReadTimeout):
            instance.api.post(
                "/v1/chat-messages",
                json={"inputs": {}, "query": "hello", "user": "contract", "response_mode": "streaming"},
                headers={"Authorization": f"Bearer {key}"},
                timeout=3,
            )
        blocking = instance.ask(key, "hello")
    finally:
        worker.unpause()

    # api runs what is not streamed by itself.
    assert blocking.json()["answer"] == "You said: hello"
    assert '"message_end"' in instance.ask(key, "hello", response_mode="streaming").text


def test_plugins_are_listed_by_the_plugin_daemon(instance: StackInstance) -> None:
    path = "/workspaces/current/plugin/list?page=1&page_size=256"
    daemon = instance.stack.container("plugin-daemon")
    listed = instance.console.get(path)
    daemon.kill()
    try:
        lost = instance.console.get(path)
    finally:
        daemon.start()

    # Both as a real 1.17 answered.
    assert (listed.status_code, listed.json()) == (200, {"plugins": [], "total": 0})
    assert lost.status_code == 400
    assert lost.json()["code"] == "invalid_param"
    assert re.fullmatch(
        r"Failed to request plugin daemon, url: plugin/[0-9a-f-]{36}/management/list", lost.json()["message"]
    )


def test_a_document_is_found_by_its_words_and_a_model_is_refused(instance: StackInstance) -> None:
    made = instance.console.post("/datasets/api-keys")
    api = httpx.Client(
        base_url=instance.api.base_url.join("/v1"),
        headers={"Authorization": f"Bearer {made.json()['token']}"},
        timeout=30,
    )
    name = f"contract {secrets.token_hex(6)}"
    with api:
        refused = api.post("/datasets", json={"name": name, "indexing_technique": "high_quality"})
        dataset = api.post("/datasets", json={"name": name, "indexing_technique": "economy"}).json()["id"]
        twice = api.post("/datasets", json={"name": name})
        batch = api.post(
            f"/datasets/{dataset}/document/create-by-text", json={"name": "n", "text": "Apples.\n\nPears."}
        ).json()["batch"]
        status = f"/datasets/{dataset}/documents/{batch}/indexing-status"
        wait_until(
            lambda: api.get(status).json()["data"][0]["indexing_status"] == "completed",
            seconds=120,
            what="the document is indexed",
        )
        model = {"search_method": "keyword_search", "top_k": 3}
        found = api.post(
            f"/datasets/{dataset}/retrieve", json={"query": "pears", "retrieval_model": model}
        ).json()
        deleted = api.delete(f"/datasets/{dataset}").status_code
        gone = api.get(f"/datasets/{dataset}").status_code
        key = f"/datasets/api-keys/{made.json()['id']}"
        instance.console.delete(key)
        closed = api.get("/datasets").status_code

    assert (refused.status_code, twice.status_code) == (400, 409)
    assert [record["segment"]["content"] for record in found["records"]] == ["Pears."]
    assert (deleted, gone, closed) == (204, 404, 401)


def test_code_runs_in_the_sandbox_with_its_key_only(instance: StackInstance) -> None:
    sandbox = instance.stack.container("sandbox")
    key = next(line for line in sandbox.attrs["Config"]["Env"] if line.startswith("API_KEY="))[8:]
    code = '{"language": "python3", "code": "print(6 * 7)"}'
    ask = [
        "curl",
        "-s",
        "-H",
        "Content-Type: application/json",
        "-d",
        code,
        "http://127.0.0.1:8194/v1/sandbox/run",
    ]

    allowed = printed(sandbox, [*ask, "-H", f"X-Api-Key: {key}"])
    refused = printed(sandbox, ask)

    assert '"stdout":"42\\n"' in allowed.replace(": ", ":")
    assert "Unauthorized" in refused


def test_migration_refuses_a_database_of_a_newer_release(instance: StackInstance) -> None:
    migration = instance.stack.container("migration")
    environment = dict(line.split("=", 1) for line in migration.attrs["Config"]["Env"])

    container = docker.from_env().containers.run(
        local_name("api"),
        environment=environment | {"DIFY_STANDIN_RELEASE": "1.12.1"},
        network=f"dify-{instance.stack.name}-data",
        detach=True,
    )
    try:
        ended = container.wait(timeout=180)
        log = container.logs().decode()
    finally:
        container.remove(force=True)

    assert ended["StatusCode"] == 1
    assert "Can't locate revision" in log


def test_containers_stop_within_seconds(instance: StackInstance) -> None:
    for service in ("web", "sandbox"):
        container = instance.stack.container(service)
        started = time.monotonic()
        subprocess.run(
            ["docker", "stop", "-t", "30", container.name], check=True, capture_output=True, timeout=60
        )
        took = time.monotonic() - started
        container.start()
        # The limit is the engine's patience before it kills, not a figure of speed.
        assert took < 30, service
