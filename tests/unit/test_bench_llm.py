"""bench/llm without an engine: what is asked, what is configured, and how figures become a judgement."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import edge, llm, llm_report, proxies
from bench.image import sse_client, sse_server
from bench.load import Load
from bench.rig import Measured
from bench.rounds import Turn
from infra.edge import llm as edge_llm
from infra.edge.paths import EDGE_DIRECTORY, USAGE_DIRECTORY
from infra.settings import proxy_keys
from support.certificates import issue

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "sk-upstream-0123456789-0123456789"


@pytest.fixture
def ours(tmp_path: Path) -> proxies.Proxy:
    ca = tmp_path / "ca.pem"
    ca.write_text(issue(ca=True, name="bench CA").pem)
    secret, caller = proxy_keys.issue("bench", NOW, requests_per_minute=0, concurrent=0)
    _, made = llm.ours(llm.edge_settings(KEY, ca, caller), secret)
    return made


def test_our_edge_meters_and_knows_its_caller(ours: proxies.Proxy) -> None:
    files = {path.removeprefix(f"{EDGE_DIRECTORY}/"): text for path, text in ours.files.items()}

    assert json.loads(files[edge_llm.SECRETS_FILE])["keys"] == {"fast": KEY, "streams": KEY}
    (caller,) = json.loads(files[edge_llm.SECRETS_FILE])["callers"].values()
    assert (caller["name"], caller["budget"]) == ("key:bench", 1_000_000)
    assert "$llm_settled" in files["parts/llm_log.conf"]
    assert "/dev/stdout edge_llm" in files["parts/llm_log.conf"]
    assert USAGE_DIRECTORY in ours.tmpfs
    assert ours.url == f"http://127.0.0.1:{ours.port}/llm/v1/chat/completions"


def test_everyone_gets_the_same_body_at_its_own_address(
    ours: proxies.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.images.of", lambda role: role)
    peer = llm.litellm(llm_report.LITELLM_2, 2, KEY, issue(ca=True, name="bench CA"))
    direct = llm.direct(KEY)

    assert ours.request.body == peer.request.body == direct.request.body == llm.chat()
    assert direct.url == "https://127.0.0.1:5001/v1/chat/completions"
    told = yaml.safe_load(peer.files["/bench/litellm.yaml"])
    assert peer.request.authorization == f"Bearer {told['general_settings']['master_key']}"
    assert [one["litellm_params"]["api_key"] for one in told["model_list"]] == [KEY, KEY]
    assert peer.command[peer.command.index("--num_workers") + 1] == "2"


def test_the_load_rests_as_it_is_told() -> None:
    files = llm.load_files()

    assert json.dumps(json.loads(llm.chat())) in files[llm.SCRIPTS[0]]
    assert "delay" not in files[llm.SCRIPTS[0]]
    assert f"math.random(0, {2 * llm_report.PACED})" in files[llm.SCRIPTS[llm_report.PACED]]
    assert f"math.random(0, {2 * llm_report.GENTLE})" in files[llm.SCRIPTS[llm_report.GENTLE]]


def taken(rate: float, own: float, p50: float, p99: float, first: float) -> llm_report.Taken:
    def measured(rate: float) -> Measured:
        load = Load(requests=100, seconds=1, rate=rate, p50=p50, p99=p99)
        return Measured(load=load, cpu=10)

    return llm_report.Taken(
        alone=measured(own),
        full=measured(rate),
        paced=measured(rate / 2),
        gentle=measured(25),
        streams=[{"first": int(first * 1000), "problem": ""}],
    )


WAYS: Mapping[str, llm_report.Taken] = {
    llm_report.DIRECT: taken(100_000, 90_000, 0.1, 0.2, 0.3),
    llm_report.OURS: taken(12_000, 10_400, 0.4, 1.2, 0.8),
    llm_report.LITELLM_1: taken(200, 200, 70, 90, 8),
    llm_report.LITELLM_2: taken(300, 205, 50, 80, 9),
}


def test_figures_are_judged_against_the_goals() -> None:
    found = [(Turn(round=1, name=name), one) for name, one in WAYS.items()]
    alone, full, paced = (
        edge.medians([(turn, one.alone) for turn, one in found]),
        edge.medians([(turn, one.full) for turn, one in found]),
        edge.medians([(turn, one.paced) for turn, one in found]),
    )

    what = llm_report.judged(alone, full, paced, llm_report.first_tokens(found))

    assert what == {
        "added p50 ms": pytest.approx(0.3),
        "added p99 ms": pytest.approx(1.0),
        "requests/s of LiteLLM, 1 worker, on a core of its own": 52,
        "requests/s of LiteLLM, 2 workers, on a core of its own": pytest.approx(10_400 / 205),
        "requests/s of LiteLLM, 1 worker, all on the same cores": 60,
        "requests/s of LiteLLM, 2 workers, all on the same cores": 40,
        "added to the first token ms": pytest.approx(0.5),
    }
    assert what.keys() == llm_report.GOALS.keys()
    assert [row[3] for row in llm_report.goals(what).rows] == ["yes", "yes", "yes", "yes", "yes", "no", "yes"]
    assert len(llm_report.raw(found)) == len(WAYS)


async def stream() -> sse_client.Stream:
    server = await sse_server.serve(0)
    wanted = sse_client.Wanted(
        port=server.sockets[0].getsockname()[1],
        host="h",
        path="/v1/chat/completions",
        streams=1,
        at_once=1,
        events=3,
        gap=20,
        deadline=5,
        model="m",
        authorization="Bearer x",
    )
    async with server:
        (one,) = await sse_client.run(wanted)
    return one


def test_a_chat_is_streamed_piece_by_piece_and_its_first_token_timed() -> None:
    one = asyncio.run(stream())

    assert (one.problem, len(one.lags)) == ("", 3)
    # The first one comes at once, and the others do not delay it.
    assert 0 < one.first < 40_000


def test_usage_is_told_when_it_is_asked_for() -> None:
    asked = {"model": "m", "stream_options": {"include_usage": True}}
    pieces = [json.loads(data) for data in _data(asked)[:-1]]

    assert pieces[-1]["usage"]["completion_tokens"] == 3
    assert _data(asked)[-1] == "[DONE]"
    assert len(_data({"model": "m"})) == 2


def _data(asked: dict[str, Any]) -> list[str]:
    chunks = [one.decode() for one in sse_server.last_pieces(asked, 3)]
    return [one.split("\r\n")[1].removeprefix("data: ").strip() for one in chunks]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("[DONE]", []),
        ('{"choices": []}', []),
        ('{"choices": [{"delta": {}}]}', []),
        ('{"choices": [{"delta": {"content": "0:17 1:18 "}}]}', [(0, 17), (1, 18)]),
    ],
)
def test_stamps_of_a_chat(data: str, told: list[tuple[int, int]]) -> None:
    assert list(sse_client.stamps(data, chat=True)) == told


def test_the_version_in_the_report_is_the_pinned_one() -> None:
    assert llm.litellm_version().count(".") == 2
