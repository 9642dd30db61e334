"""The bench reads what wrk and /proc say, takes medians of interleaved rounds, and writes what it measured."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench import __main__ as program
from bench import cpu, edge, load, machine, oauth, proxies, report, streams, up
from bench.image import sse_client, sse_server
from bench.rig import Measured
from bench.rounds import Turn, interleaved, median, percentile
from dify_kit.errors import KitError
from infra.edge.paths import EDGE_DIRECTORY
from tests.unit.test_render import parsed, walk

# Real output of wrk 4.1.0, Debian.
WRK = """Running 2s test @ http://127.0.0.1:9001/v1/parameters
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   735.13us    1.30ms  32.60ms   97.43%
    Req/Sec    27.02k     8.10k   41.69k    65.00%
  Latency Distribution
     50%  494.00us
     75%  785.00us
     90%    1.22ms
     99%    5.44ms
  53766 requests in 2.00s, 11.85MB read
Requests/sec:  26845.99
Transfer/sec:      5.91MB
"""


@pytest.fixture(autouse=True)
def no_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Build no peer: Caddy and Traefik take minutes of compilation where the cache has none."""
    monkeypatch.setattr("bench.peers.program", lambda _: tmp_path / "program")


def test_wrk_report_is_read_in_milliseconds() -> None:
    assert load.parse(WRK) == load.Load(requests=53766, seconds=2.0, rate=26845.99, p50=0.494, p99=5.44)


@pytest.mark.parametrize(
    ("told", "milliseconds"), [("5.44ms", 5.44), ("812.00us", 0.812), ("1.25s", 1250.0), ("1.50m", 90000.0)]
)
def test_wrk_units(told: str, milliseconds: float) -> None:
    assert load.parse(WRK.replace("5.44ms", told)).p99 == pytest.approx(milliseconds)


def test_wrk_run_of_more_than_a_minute() -> None:
    assert load.parse(WRK.replace("requests in 2.00s", "requests in 1.50m")).seconds == pytest.approx(90)


def test_refused_and_failed_requests_are_counted() -> None:
    told = WRK.replace(
        "Requests/sec",
        "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 53000\nRequests/sec",
    )

    found = load.parse(told)

    assert (found.refused, found.socket_errors) == (53000, 10)


@pytest.mark.parametrize("missing", ["     99%    5.44ms\n", "Requests/sec:  26845.99\n", "53766 requests"])
def test_incomplete_wrk_report_is_an_error(missing: str) -> None:
    with pytest.raises(load.LoadError, match="not complete"):
        load.parse(WRK.replace(missing, ""))


def test_wrk_command_is_bounded_and_carries_the_headers() -> None:
    command = load.command(
        "http://127.0.0.1:1/x", seconds=7, headers={"Host": "localhost", "Origin": "https://a"}
    )

    assert "-d7s" in command
    assert "-c16" in command
    assert command[-5:] == ["-H", "Host: localhost", "-H", "Origin: https://a", "http://127.0.0.1:1/x"]


def test_rounds_are_interleaved() -> None:
    order = [(turn.round, turn.name) for turn in interleaved(["a", "b", "c"], 2)]

    assert order == [(1, "a"), (1, "b"), (1, "c"), (2, "a"), (2, "b"), (2, "c")]


def test_median_of_nothing_is_an_error() -> None:
    assert median(["a", "bbb", "cc"], len) == 2
    with pytest.raises(ValueError, match="no round"):
        median([], float)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1), (0.0, 1)])
def test_percentile_of_a_hundred(share: float, value: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1), st.sampled_from([0.5, 0.9, 0.99]))
def test_percentile_leaves_the_right_share_above(values: list[float], share: float) -> None:
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values)


def stat(pid: int, parent: int, times: str, name: str = "nginx") -> str:
    return f"{pid} ({name}) S {parent} 1 1 0 -1 4194560 100 0 0 0 {times} 20 0 1 0 100 1 1"


def processes(directory: Path, *lines: str) -> Path:
    for line in lines:
        own = directory / line.split(" ", 1)[0]
        own.mkdir()
        (own / "stat").write_text(line)
    (directory / "self").mkdir()
    return directory


def test_cpu_counts_a_tree_with_its_ended_children_and_nobody_else(tmp_path: Path) -> None:
    proc = processes(
        tmp_path,
        stat(10, 1, "1 2 3 4"),
        stat(11, 10, "100 20 0 0"),
        stat(12, 11, "1000 0 0 0", name="odd) name (x"),
        stat(13, 1, "5000 5000 0 0"),
    )

    assert cpu.tree_seconds(10, proc=proc, ticks_per_second=100) == pytest.approx(11.3)


def test_cpu_of_a_process_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(cpu.NoProcessError, match="process 99"):
        cpu.tree_seconds(99, proc=processes(tmp_path, stat(10, 1, "1 2 3 4")))


def measured(rate: float, p99: float, micros: float) -> Measured:
    return Measured(load=load.Load(requests=1000, seconds=1, rate=rate, p50=p99 / 2, p99=p99), cpu=micros)


TURNS = [
    (Turn(round=number, name=name), measured(rate, p99, micros))
    for number, name, rate, p99, micros in [
        (1, "bare", 10_000.0, 4.0, 20.0),
        (1, "edge", 8_000.0, 5.0, 30.0),
        (2, "bare", 30_000.0, 1.0, 22.0),
        (2, "edge", 9_000.0, 9.0, 28.0),
        (3, "bare", 20_000.0, 2.0, 21.0),
        (3, "edge", 7_000.0, 6.0, 29.0),
    ]
]


def test_ratios_are_those_of_the_medians() -> None:
    found = edge.medians(TURNS)
    relative = edge.ratios(found)

    assert list(found) == ["bare", "edge"]
    assert found["edge"] == edge.Figures(rate=8_000, p50=3.0, p99=6.0, cpu=29.0)
    assert relative["edge"].rate == pytest.approx(0.4)
    assert relative["edge"].p99 == pytest.approx(3.0)
    assert relative["edge"].cpu == pytest.approx(29 / 21)
    assert relative["bare"] == edge.Figures(rate=1, p50=1, p99=1, cpu=1)


def result(rows: tuple[tuple[report.Cell, ...], ...] = (("edge", 12_345.6, 0.5),)) -> report.Report:
    return report.Report(
        name="edge",
        title="Title",
        command="python -m bench edge",
        machine={"cores": "2"},
        parameters={"rounds": 3},
        tables=(report.Table(title="Medians", columns=("proxy", "requests/s", "ratio"), rows=rows),),
        notes=("a note",),
        raw=[{"round": 1, "p99 ms": 1.23456}, {"round": 2, "p99 ms": 44.04}],
        summary={"edge": {"ratio": 0.5}},
    )


def test_report_is_written_to_read_and_to_compare(tmp_path: Path) -> None:
    path = report.write(result(), tmp_path / "new")

    text = path.read_text(encoding="utf-8")
    assert "| edge | 12,346 | 0.50 |" in text
    assert "by `python -m bench edge`" in text
    assert "- cores: 2\n- rounds: 3" in text
    assert "| 1 | 1.23 |\n| 2 | 44.0 |" in text
    told = json.loads((tmp_path / "new" / "edge.json").read_text(encoding="utf-8"))
    assert told["raw"][0]["p99 ms"] == 1.23456
    assert told["summary"] == {"edge": {"ratio": 0.5}}
    assert told["machine"] == {"cores": "2"}
    assert told["date"].endswith("UTC")


def test_report_says_what_did_not_work() -> None:
    assert "**" not in report.markdown(result(), "today")
    assert "**3 streams broke**" in report.markdown(replace(result(), problem="3 streams broke"), "today")


@pytest.mark.parametrize(
    ("changes", "containers", "problem"), [(0, up.SAME, False), (1, up.SAME, True), (0, "others", True)]
)
def test_up_that_changes_something_is_a_problem(changes: int, containers: str, problem: bool) -> None:
    raw = [
        {"round": 1, "command": name, "seconds": seconds, "changes": changes, "containers": containers}
        for name, seconds in ((up.MAKE, 9.0), (up.PULUMI, 6.0))
    ]

    found = up.report_of("python -m bench up", raw, first=100.0, rounds=1, facts={})

    assert bool(found.problem) is problem
    assert found.summary["ratio"] == 1.5
    assert found.tables[0].rows[0][1:3] == (9.0, 1.5)


def test_report_refuses_a_row_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 cells for 3 columns"):
        result((("edge", 1.0),))


@pytest.mark.parametrize(
    ("cell", "text"), [(0.123, "0.12"), (12.34, "12.3"), (123.4, "123"), (12_345, "12,345"), ("a|b", "a\\|b")]
)
def test_figures_are_shown_with_three_digits(cell: report.Cell, text: str) -> None:
    assert report.shown(cell) == text


def test_processor_is_found() -> None:
    assert machine.processor("processor\t: 0\nmodel name\t: AMD EPYC\n") == "AMD EPYC"
    assert machine.processor("nothing") == "unknown"


HISTORY = [
    {"version": 3, "result": "succeeded", "resourceChanges": {"same": 90, "update": 2, "create": 1}},
    {"version": 2, "result": "failed"},
]


def test_changes_are_those_of_the_newest_update() -> None:
    assert up.changes(json.dumps(HISTORY)) == {"update": 2, "create": 1}
    with pytest.raises(KitError, match="failed"):
        up.changes(json.dumps(HISTORY[1:]))


def test_the_measured_edge_is_the_rendered_one_and_every_peer_gets_the_same_request(tmp_path: Path) -> None:
    context = proxies.measured_context()
    edge_proxy, bare = proxies.edge(context), proxies.bare(context)

    # Everything that the kit renders, and nothing else.
    assert f"{EDGE_DIRECTORY}/nginx.conf" in edge_proxy.files
    assert edge_proxy.request.headers == bare.request.headers
    assert edge_proxy.request.headers["Authorization"].startswith("Bearer app-")
    workers = [
        one["args"]
        for one in parsed({f"{EDGE_DIRECTORY}/bare.conf": bare.files["/bench/bare.conf"]}, tmp_path)[
            "bare.conf"
        ]
        if one["directive"] == "worker_processes"
    ]
    assert workers == [[str(proxies.worker_count(context))]]
    passes = [one for _, one in walk(parsed(edge_proxy.files, tmp_path / "edge")["servers/dify.conf"])]
    assert any(one["directive"] == "proxy_pass" for one in passes)


def test_everyone_calls_with_the_same_token_but_those_with_an_api_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is built here.
    monkeypatch.setattr("bench.peers.program", lambda _: tmp_path / "program")
    on, off = oauth.contexts()
    found = oauth.turns(on, off, "a.b.c")

    assert found.keys() == oauth.FEATURES.keys()
    keys = {name for name, proxy in found.items() if "app-" in proxy.request.headers["Authorization"]}
    assert keys == {"bare", "key, OAuth off", "key"}
    assert [name for name, proxy in found.items() if proxy.request.script] == ["1000 tokens"]
    # One edge, asked in three ways, and one without OAuth that takes none of its ports.
    assert found["key"].files == found["token"].files == found["1000 tokens"].files
    assert (off.http_port, off.status_port) != (on.http_port, on.status_port)
    assert "gateway:8091" in found["caddy"].files["/bench/Caddyfile"]
    assert "gateway:8091/verify" in found["traefik"].files["/bench/traefik-routes.yml"]
    parsed(found["key, OAuth off"].files, tmp_path)


def test_tokens_differ_and_the_gateways_time_stands_beside_the_proxys() -> None:
    assert len(set(oauth.tokens(3))) == 3
    found = [
        (turn, oauth.Taken(measured=one, paced=TURNS[0][1], gateway=float(number)))
        for number, (turn, one) in enumerate(TURNS)
    ]

    rows = oauth.comparison(found).rows

    assert [(row[0], row[1], row[-1]) for row in rows] == [("bare", 20_000, 2.0), ("edge", 8_000, 3.0)]
    assert oauth.raw(found)[5]["gateway µs/request"] == 5.0
    assert oauth.raw(found)[5]["paced requests/s"] == TURNS[0][1].load.rate


def test_paced_calls_are_the_same_calls_with_rests() -> None:
    on, off = oauth.contexts()
    files = oauth.load_files(["t1", "t2"])

    for proxy in oauth.turns(on, off, "e30.e30.c2ln").values():
        resting = oauth.paced(proxy)
        assert resting.request.headers == proxy.request.headers
        script = files[resting.request.script]
        assert "function delay()" in script
        assert ("function request()" in script) == bool(proxy.request.script)


STREAMS: list[dict[str, Any]] = [
    {"lags": [1000, 3000], "problem": ""},
    {"lags": [2000, 9000], "problem": ""},
    {"lags": [99_000], "problem": "cut"},
]


def test_lags_of_broken_streams_do_not_count() -> None:
    found = streams.figures(STREAMS)

    assert found["first event p50 ms"] == 1.0
    assert found["event max ms"] == 9.0


async def _through(serve: Any, **changed: Any) -> list[sse_client.Stream]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    wanted: dict[str, Any] = {
        "host": "localhost",
        "path": "/v1/x",
        "streams": 4,
        "at_once": 2,
        "events": 3,
        "gap": 10,
        "deadline": 5,
    }
    async with server:
        return await sse_client.run(sse_client.Wanted(port=port, **(wanted | changed)))


def test_streams_arrive_whole_and_in_order() -> None:
    found = asyncio.run(_through(sse_server.answer))

    assert [one.problem for one in found] == [""] * 4
    assert [len(one.lags) for one in found] == [3] * 4
    assert all(0 <= lag < 5_000_000 for one in found for lag in one.lags)


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param(b"HTTP/1.1 429 Too Many Requests\r\n\r\n", "429", id="refused"),
        pytest.param(HEAD + sse_server.event(0), "IncompleteRead", id="cut"),
        pytest.param(HEAD + sse_server.event(0) + b"0\r\n\r\n", "ended after 1 of 3", id="short"),
        pytest.param(HEAD + sse_server.event(1), "event 1 came as number 0", id="lost"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "not chunked", id="not a stream"),
    ],
)
def test_broken_streams_are_noticed(answer: bytes, problem: str) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    found = asyncio.run(_through(broken))

    assert all(problem in one.problem for one in found)


def test_stream_that_never_ends_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    found = asyncio.run(_through(silent, streams=1, deadline=0.2))

    assert "not over within" in found[0].problem


def test_a_bench_that_fails_stops_no_other_but_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_command: str, **_options: int) -> report.Report:
        raise KitError("wrk is tired")

    asked: list[dict[str, int]] = []

    def edge_run(_command: str, **options: int) -> report.Report:
        asked.append(options)
        return result()

    monkeypatch.setattr(up, "run", broken)
    monkeypatch.setattr(edge, "run", edge_run)
    # The process of the tests keeps its own handler.
    monkeypatch.setattr("signal.signal", lambda *_: None)
    app = typer.Typer()
    app.command()(program.main)

    done = CliRunner().invoke(app, ["up", "edge", "--rounds", "2", "--seconds", "1", "--out", str(tmp_path)])

    assert done.exit_code == 1
    assert "wrk is tired" in done.output
    assert asked == [{"rounds": 2, "seconds": 1}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edge.json", "edge.md"]
