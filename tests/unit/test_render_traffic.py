"""The counting of requests, rendered: next to every log of requests, and without a value of a client."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue import ports
from infra.catalogue.releases import RELEASES
from infra.catalogue.route_groups import TABLE
from infra.catalogue.services import LLM_EDGE, NGINX
from infra.edge.context import EdgeContext, edge_context
from infra.edge.paths import RUN_DIRECTORY
from infra.edge.ring import EdgeRing, replica_names
from infra.edge.roles import edge_contexts
from infra.edge.traffic import BUCKETS, LOGS, STATUSES, TURN_SECONDS
from support.configuration import settings
from tests.integration.edge.oauth import settings_of_gate
from tests.unit.test_render import Directive, edge_files, evaluated, everything, parsed, walk
from tests.unit.test_render_llm import KEYS, LLM
from tests.unit.test_render_oauth import OAUTH
from tests.unit.test_settings_kubernetes import on_cluster

FILES = [log.path for log in LOGS]
# What a line consists of. Each is a number, or of a set that the kit bounds.
FIELDS = [
    *("$status", "$traffic_limit", "$request_time", "$upstream_header_time", "$upstream_status"),
    *("$bytes_sent", "$request_length"),
]
# Nothing of a client ends there: what is asked inside of nginx, for health, and hosts that get no answer.
NOT_COUNTED = {
    *("servers/llm_owner", "servers/ring.conf", "servers/starting.conf", "servers/status.conf"),
    *("servers/unknown.conf", "servers/unknown_tls.conf", "http/owner.conf"),
}


def context(plain: Mapping[str, Any] | None = None, *, whole: bool = False, llm: bool = False) -> EdgeContext:
    """Return what the templates read; `whole`: with OAuth and a gate."""
    given = {**({"llm": LLM} if llm else {}), **(plain or {})}
    found = settings(given, {"llmKeys": json.dumps(KEYS)} if llm else {})
    if whole:
        found = replace(found, oauth=OAUTH, oidc_gate=settings_of_gate())
    return edge_context(found, RELEASES[found.release])


def logs(block: list[Directive]) -> list[list[str]]:
    """Return the access logs of a block, those of an included part too."""
    return [one["args"] for one in block if one["directive"] == "access_log"]


def counts(block: list[Directive]) -> bool:
    """Tell whether a block counts requests, by itself or by the part for it."""
    files = [args[0] for args in logs(block)]
    included = ["parts/traffic.conf"] in [one["args"] for one in block if one["directive"] == "include"]
    return included or [one for one in files if one in FILES] == FILES


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "whole": {"whole": True},
    "llm": {"llm": True, "whole": True},
    "no log": {"plain": {"accessLog": "off"}, "llm": True},
    "errors": {"plain": {"accessLog": "errors"}, "llm": True},
    "tls": {"plain": {"publicUrl": "https://dify.example.com"}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_has_a_log_of_its_own_counts_too(variant: str, tmp_path: Path) -> None:
    files = parsed(edge_files(context(**VARIANTS[variant])), tmp_path)
    http = files["http/traffic.conf"] + files["http/log.conf"]

    assert counts(http)
    assert ["off"] not in logs(http)
    for path, directives in files.items():
        if path in {"http/traffic.conf", "http/log.conf", "parts/traffic.conf"} | NOT_COUNTED:
            continue
        for block in [directives, *(one["block"] for _, one in walk(directives) if "block" in one)]:
            own = [args for args in logs(block) if args != ["off"]]
            if own:
                assert counts(block), path
    off = [
        (path, one.get("args"))
        for path, directives in files.items()
        if path not in NOT_COUNTED
        for _, one in walk(directives)
        if "block" in one and ["off"] in logs(one["block"])
    ]
    assert {tuple(args or ()) for _, args in off} <= {("=", "/healthz")}


def test_a_user_of_a_part_of_the_log_gets_the_counting_too(tmp_path: Path) -> None:
    files = parsed(edge_files(context(llm=True)), tmp_path)

    assert counts(files["parts/llm_log.conf"])
    assert [args[0] for args in logs(files["parts/traffic.conf"])] == FILES


@pytest.mark.parametrize("whole", [False, True])
def test_a_line_has_the_group_and_nothing_that_a_client_chooses(whole: bool, tmp_path: Path) -> None:
    files = edge_files(context(whole=whole))
    formats = {
        one["args"][0]: one["args"][-1]
        for _, one in everything(files, tmp_path)
        if one["directive"] == "log_format" and one["args"][0].startswith("traffic")
    }

    first = "$traffic_group" if whole else "$edge_group"
    more = {"traffic_introspection": "@introspection", "traffic_session": "@session"} if whole else {}
    assert {name: text.split("|") for name, text in formats.items()} == {
        name: [group, *FIELDS] for name, group in {"traffic": first, **more}.items()
    }


def test_the_logs_take_turns_without_a_gap(tmp_path: Path) -> None:
    value = evaluated(edge_files(context()), tmp_path)

    for second in range(20):
        moment = {"$msec": f"17960000{second:02}.{second * 37 % 1000:03}"}
        written = [value(log.condition, moment) for log in LOGS]
        assert written == (["1", ""] if second // TURN_SECONDS % 2 == 0 else ["", "1"])


@pytest.mark.parametrize(
    ("status", "rate", "connections", "limit"),
    [
        ("200", "PASSED", "PASSED", ""),
        ("429", "REJECTED", "", "rate"),
        ("429", "PASSED", "REJECTED", "concurrency"),
        # Dify's own.
        ("429", "PASSED", "PASSED", ""),
        ("429", "", "", ""),
    ],
)
def test_the_limit_that_refused(status: str, rate: str, connections: str, limit: str, tmp_path: Path) -> None:
    value = evaluated(edge_files(context()), tmp_path)
    given = {"$status": status, "$limit_req_status": rate, "$limit_conn_status": connections}

    assert value("$traffic_limit", given) == limit


@pytest.mark.parametrize(
    ("rate", "connections", "limit"),
    [
        ("REJECTED_DRY_RUN", "PASSED", "rate_dry_run"),
        ("PASSED", "REJECTED_DRY_RUN", "concurrency_dry_run"),
        ("PASSED", "PASSED", ""),
    ],
)
def test_the_limit_that_would_have_refused(rate: str, connections: str, limit: str, tmp_path: Path) -> None:
    files = edge_files(context({"rateLimits": {"dryRun": True}}))
    value = evaluated(files, tmp_path)

    assert value("$traffic_refusal", {"$limit_req_status": rate, "$limit_conn_status": connections}) == limit
    tables = json.loads(next(text for path, text in files.items() if path.endswith("traffic/tables.json")))
    assert not limit or limit in tables["limits"].split(" ")


def test_requests_for_tokens_are_calls_of_the_gateway_too(tmp_path: Path) -> None:
    value = evaluated(edge_files(context(whole=True)), tmp_path)

    def group(path: str) -> str:
        return value("$traffic_group", {"$request_uri": path})

    assert group("/oauth/token") == group("/oauth/token?x=1") == "oauth@token"
    assert group("/oauth/token2") == group("/oauth/revoke") == "oauth"
    assert group("/v1/chat-messages") == "v1"


def test_the_tables_have_every_group_that_a_request_can_have(tmp_path: Path) -> None:
    files = edge_files(context(whole=True, llm=True))
    tables = json.loads(next(text for path, text in files.items() if path.endswith("traffic/tables.json")))
    used = {
        entry["args"][0]
        for _, one in everything(files, tmp_path)
        if one["directive"] == "map" and one["args"][1] == "$edge_group"
        for entry in one["block"]
    }

    assert used <= set(tables["groups"].split(" ")) <= {one.name for one in TABLE}
    assert tables["calls"].split(" ") == ["token", "introspection", "session"]
    assert set(STATUSES) < set(tables["statuses"].split(" "))
    assert [float(one) for one in tables["buckets"].split(" ")] == list(BUCKETS) == sorted(BUCKETS)
    assert tables["logs"].split(" ") == FILES
    assert all(path.startswith(f"{RUN_DIRECTORY}/") for path in FILES)


def test_metrics_are_at_the_port_inside_alone(tmp_path: Path) -> None:
    files = parsed(edge_files(context(whole=True, llm=True)), tmp_path)
    found = {
        (path, listen)
        for path, directives in files.items()
        for _, server in walk(directives)
        if server["directive"] == "server" and "block" in server
        for location in server["block"]
        if location["directive"] == "location" and location["args"] == ["=", "/metrics"]
        for listen in (" ".join(one["args"]) for one in server["block"] if one["directive"] == "listen")
    }

    assert found == {("servers/status.conf", f"127.0.0.1:{ports.EDGE_STATUS}")}


def test_replicas_count_for_their_clients_and_owners_for_none(tmp_path: Path) -> None:
    ring = replace(context(), ring=EdgeRing(replicas=replica_names(3)))
    files = parsed(edge_files(ring), tmp_path)
    servers = [one["block"] for one in files["servers/ring.conf"] if one["directive"] == "server"]

    assert all(["off"] in logs(server) for server in servers)
    # What an owner refused is in the count of the replica before.
    (source,) = (
        one["args"][0]
        for _, one in walk(files["http/traffic.conf"])
        if one["directive"] == "map" and one["args"][1] == "$traffic_refusal"
    )
    assert source == "$ring_rate_status,$ring_connection_status"


def test_on_a_cluster_nginx_counts_the_request_and_the_owner_its_tokens(tmp_path: Path) -> None:
    found = settings(on_cluster() | {"llm": LLM}, {"llmKeys": json.dumps(KEYS)})
    contexts = edge_contexts(found, RELEASES[found.release])
    owner = edge_files(contexts[LLM_EDGE])
    front = parsed(edge_files(contexts[NGINX]), tmp_path)

    assert not [path for path in owner if re.search(r"/traffic[./]", path)]
    assert not [text for path, text in owner.items() if path.endswith(".conf") and "traffic" in text]
    passed = next(one["block"] for one in front["parts/owner.conf"] if one.get("args") == ["@llm_owner"])
    assert counts(passed)
    assert [args for args in logs(passed) if args != ["off"]] == []
