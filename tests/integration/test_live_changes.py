"""Changes of the edge under load: they go live, or not at all, and no request is lost."""

import time
from pathlib import Path

import httpx

from infra.edge_paths import DRAIN_MARK, EDGE_DIRECTORY
from tests.integration.containers import printed
from tests.integration.load import steady_load
from tests.integration.stacks import Stack, settings_changed

ORIGIN = "https://live.example.com"


def allowed(stack: Stack, origin: str) -> bool:
    answer = httpx.get(f"{stack.url}/v1/info", headers={"Origin": origin}, timeout=10)
    return answer.headers.get_list("access-control-allow-origin") == [origin]


def revisions(stack: Stack) -> list[str]:
    return sorted(printed(stack.container("nginx"), ["ls", f"{EDGE_DIRECTORY}/releases"]).split())


def triggers_zone(stack: Stack) -> str:
    """Return the line of nginx's running configuration that declares the limit of /triggers."""
    told = printed(stack.container("nginx"), ["cat", f"{EDGE_DIRECTORY}/current/http/limits.conf"])
    return "\n".join(line for line in told.splitlines() if "limit_req_zone" in line and "triggers" in line)


def own_templates(directory: Path, path: str, text: str) -> str:
    """Write a template of the operator's, and return the directory for `dify:templatesDir`."""
    file = directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return str(directory)


def test_changes_under_load_lose_no_request(stack: Stack, tmp_path: Path) -> None:
    nginx = stack.container("nginx").id
    good = own_templates(
        tmp_path / "good", "nginx/snippets/server/hello.conf.j2", "location = /hello { return 200 hello; }\n"
    )
    broken = own_templates(
        tmp_path / "broken", "nginx/snippets/server/hello.conf.j2", "# fine\nbogus_directive on;\n"
    )
    with (
        steady_load(
            f"{stack.url}/v1/chat-messages",
            headers={"Authorization": "Bearer app-nobody-has-this-key", "Content-Type": "application/json"},
        ) as load,
        settings_changed(stack, {"cors.v1[1]": ORIGIN, "templatesDir": good}),
    ):
        stack.up()
        assert allowed(stack, ORIGIN)
        assert httpx.get(f"{stack.url}/hello").text == "hello"

        stack.set_config("templatesDir", broken)
        refused = stack.try_up()
        assert refused.code == 1
        assert f"{broken}/nginx/snippets/server/hello.conf.j2, line 2" in refused.told
        assert "bogus_directive" in refused.told
        assert "Traceback" not in refused.told
        assert httpx.get(f"{stack.url}/hello").text == "hello", "the old configuration stays"

        stack.set_config("templatesDir", good)
        with settings_changed(stack, {"rateLimits.triggers.requests": "50"}):
            stack.up()
            assert "rate=25r/s" in triggers_zone(stack)
    stack.up()

    # The edge's own limits answer the rest: no request is without an answer.
    assert load.lost == {}
    assert set(load.statuses) <= {401, 429}
    assert load.statuses[401] > 1000
    assert stack.container("nginx").id == nginx
    assert not allowed(stack, ORIGIN)
    assert len(revisions(stack)) == 2
    running = stack.outputs()["edgeRevision"]
    assert [one for one in revisions(stack) if one.startswith(f"{running}-")], "with the address of api"
    assert stack.container("nginx").exec_run(["test", "-e", DRAIN_MARK]).exit_code == 1


def test_recreated_api_costs_only_503_with_retry_after(stack: Stack) -> None:
    with steady_load(
        f"{stack.url}/v1/chat-messages",
        headers={"Authorization": "Bearer app-nobody-has-this-key", "Content-Type": "application/json"},
    ) as load:
        time.sleep(2)
        stack.container("api").remove(force=True)
        stack.up()
        healthy, after = time.monotonic(), set()
        with httpx.Client(base_url=stack.url, timeout=10) as client:
            while time.monotonic() < healthy + 2:
                after.add(client.get("/v1/info").status_code)
                time.sleep(0.05)
    assert after <= {401, 429}
    assert 401 in after
    assert load.lost == {}
    assert {401, 503} <= set(load.statuses) <= {401, 429, 503}
    assert load.bare_503 == 0


def test_stream_outlives_a_change(stack: Stack) -> None:
    key = stack.outputs(secrets_too=True)["canaryKey"]
    # The stand-in answers word by word.
    question = " ".join(f"word{number}" for number in range(150))
    body = {"inputs": {}, "query": question, "user": "live", "response_mode": "streaming"}
    with (
        settings_changed(stack, {"cors.v1[1]": ORIGIN}),
        httpx.stream(
            "POST",
            f"{stack.url}/v1/chat-messages",
            headers={"Authorization": f"Bearer {key}"},
            json=body,
            timeout=60,
        ) as answer,
    ):
        lines = answer.iter_lines()
        first = next(lines)
        stack.up()
        rest = [line for line in lines if line.startswith("data: ")]
    stack.up()

    assert answer.status_code == 200
    assert first
    assert '"event": "message_end"' in rest[-1] or '"event":"message_end"' in rest[-1]
