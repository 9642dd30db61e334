"""Several replicas of the edge, rendered: each limit has one owner, and one replica is as it always was."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue.releases import RELEASES
from infra.edge import check as nginx_check
from infra.edge.context import EdgeContext, edge_context
from infra.edge.limits import ADDRESS_KEY, ConnectionZone, RateZone
from infra.edge.paths import EDGE_DIRECTORY
from infra.edge.render import edge_files
from infra.edge.ring import TEMPLATES, EdgeRing, replica_names
from infra.services.edge import run_script
from support.configuration import settings
from tests.integration.edge.oauth import settings_of_gate
from tests.unit.test_render import blocks, doubled_headers, parsed, written
from tests.unit.test_render_oauth import OAUTH
from tests.unit.test_settings_kubernetes import on_cluster

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tls": {"publicUrl": "https://dify.example.com", "trustedProxies": ["10.0.0.0/8"], "accessLog": "errors"},
    "no limits by address": {"rateLimits": {"v1": {"addressRequests": 0, "addressConcurrent": 0}}},
    "dry run": {"rateLimits": {"dryRun": True}},
}


def context(
    plain: dict[str, Any] | None = None, *, replicas: int = 3, everything: bool = False
) -> EdgeContext:
    """Return what the templates read; `everything`: with OAuth and a gate."""
    found = settings(plain)
    if everything:
        found = replace(found, oauth=OAUTH, oidc_gate=settings_of_gate())
    one = edge_context(found, RELEASES[found.release])
    return replace(one, ring=EdgeRing(replicas=replica_names(replicas))) if replicas > 1 else one


def test_one_replica_has_no_ring() -> None:
    files = edge_files(context(replicas=1))

    assert not [path for path in files if "ring" in path.removeprefix(EDGE_DIRECTORY)]
    assert not [path for path, text in files.items() if "ring_" in text or "X-Ring" in text]


def test_the_settings_of_a_cluster_make_the_ring() -> None:
    def ring(replicas: int) -> EdgeRing | None:
        found = settings(on_cluster(replicas={"edge": replicas}))
        return edge_context(found, RELEASES[found.release]).ring

    assert ring(1) is None
    found = ring(2)
    assert found is not None
    assert found.replicas == ("nginx-0", "nginx-1")


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_parses_and_gixy_finds_nothing(variant: str, everything: bool, tmp_path: Path) -> None:
    files = edge_files(context(VARIANTS[variant], everything=everything))
    directory = written(files, tmp_path)

    nginx_check.parse(directory)
    assert nginx_check.lint(directory) == []
    assert doubled_headers(files, tmp_path) == []
    assert {f"nginx/{path.removeprefix(EDGE_DIRECTORY + '/')}.j2" for path in files} >= TEMPLATES


def test_every_zone_counts_at_the_owner_of_its_key_and_nowhere_else() -> None:
    edge = context(everything=True)
    files = edge_files(edge)
    both: list[RateZone | ConnectionZone] = [*edge.limits.rate_zones, *edge.limits.connection_zones]
    zones = {zone.name: zone for zone in both}
    owner = files[f"{EDGE_DIRECTORY}/servers/ring.conf"]

    for name, zone in zones.items():
        assert len(re.findall(rf"limit_(?:req zone=|conn ){name}[ ;]", owner)) == 1
        found = edge.steps_of(zone)
        assert found, name
        # One that counted at two owners would let twice as many pass.
        assert len({step.key for step in found}) == 1
        assert {step.key for step in found} == {zone.key if zone.key != "$limit_attempt" else ADDRESS_KEY}
    for path, text in files.items():
        if not path.endswith("servers/ring.conf"):
            assert not re.search(r"^\s*limit_(?:req|conn) ", text, re.MULTILINE) or "stream/" in path, path


def test_a_request_passes_the_owner_of_its_address_last() -> None:
    edge = context(everything=True)

    for location in edge.locations:
        steps = edge.steps_at(location.limits)
        assert len(steps) <= 2
        assert [step.key for step in steps].index(ADDRESS_KEY) == len(steps) - 1 if steps else True
        zones = {zone.name for zone in edge.limits.rates_at(location.limits)}
        zones |= {zone.name for zone in edge.limits.connections_at(location.limits)}
        assert zones == {name for step in steps for name in step.zones}


def test_a_slow_service_moves_no_key(tmp_path: Path) -> None:
    files = edge_files(context(everything=True))

    assert re.findall(r"server (nginx-.*);", files[f"{EDGE_DIRECTORY}/http/ring.conf"]) == [
        f"nginx-{index}:8083 max_fails=0" for index in range(3)
    ]
    # A request that was sent is not sent again: every time to wait for a response is longer.
    found = 0
    for directives in parsed(files, tmp_path).values():
        for block in blocks(directives):
            values = {one["directive"]: one["args"][0] for one in block if one["args"]}
            if any(one["args"] == ["parts/ring_next.conf"] for one in block):
                found += 1
                wait = int(values["proxy_next_upstream_timeout"].removesuffix("ms"))
                assert wait < 1000 * int(values.get("proxy_read_timeout", "3600s").removesuffix("s")), block
    assert found > 20


def started(tmp_path: Path, resolved: str, seconds: int) -> "subprocess.CompletedProcess[str]":
    """Run what starts nginx, with a DNS server that has the names in `resolved`."""
    programs = {
        "getent": f'case " {resolved} " in *" $2 "*) exit 0 ;; esac; exit 2',
        "nginx": "echo nginx runs",
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    return subprocess.run(
        ["sh", "-c", run_script(replica_names(3), seconds=seconds)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=60,
    )


def test_nginx_starts_once_the_names_of_all_replicas_are_known(tmp_path: Path) -> None:
    done = started(tmp_path, "nginx-0 nginx-1 nginx-2", 30)

    assert (done.returncode, done.stdout) == (0, "nginx runs\n")


def test_a_name_that_stays_unknown_ends_the_container_with_the_name(tmp_path: Path) -> None:
    done = started(tmp_path, "nginx-0 nginx-2", 1)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("waiting for the name nginx-1 in DNS") == 1
    assert "no address for the name nginx-1 in DNS after 1 s" in done.stderr
