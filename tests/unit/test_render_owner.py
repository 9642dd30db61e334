"""The LLM proxy with an owner of its counts, rendered: nginx passes requests to it, and the owner does the rest."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dify_kit.stack import llm_usage
from dify_kit.stack.rendering import rendered_files
from infra.catalogue import ports
from infra.catalogue.releases import RELEASES
from infra.catalogue.services import LLM_EDGE, NGINX, SERVICES
from infra.edge import check as nginx_check
from infra.edge.context import EdgeContext
from infra.edge.owner import NOT_OWNED, OWNING, PASSING
from infra.edge.paths import EDGE_DIRECTORY
from infra.edge.render import edge_configuration, edge_files
from infra.edge.roles import edge_contexts
from infra.platforms.kubernetes.pods import PRE_STOP_SECONDS
from support.configuration import settings
from tests.integration.edge.oauth import settings_of_gate
from tests.unit.test_render import doubled_headers, written
from tests.unit.test_render_oauth import OAUTH
from tests.unit.test_settings_kubernetes import on_cluster

KEY = {"llmKeys": json.dumps({"holysheep": "hs-0123456789-0123456789-wxyz"})}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tls": {"publicUrl": "https://dify.example.com", "trustedProxies": ["10.0.0.0/8"], "accessLog": "errors"},
    "no log": {"accessLog": "off"},
    "litellm": {"llm": {"enabled": True, "engine": "litellm"}},
    "several": {"replicas": {"edge": 3}},
}


def contexts(
    plain: dict[str, Any] | None = None, *, everything: bool = False, llm: bool = True
) -> dict[str, EdgeContext]:
    """Return what the templates read on a cluster; `everything`: with OAuth and a gate."""
    given = dict(plain or {})
    given = {
        **on_cluster(replicas=given.pop("replicas", {})),
        **({"llm": {"enabled": True}} if llm else {}),
        **given,
    }
    found = settings(given, KEY if llm else {})
    if everything:
        found = replace(found, oauth=OAUTH, oidc_gate=settings_of_gate())
    return edge_contexts(found, RELEASES[found.release])


def names(files: dict[str, str]) -> set[str]:
    """Return the templates and scripts of rendered files."""
    paths = {path.removeprefix(f"{EDGE_DIRECTORY}/") for path in files}
    return {
        f"nginx/{path}" if path.endswith((".js", "package.json")) else f"nginx/{path}.j2" for path in paths
    }


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("service", [LLM_EDGE, NGINX])
def test_every_variant_parses_and_gixy_finds_nothing(
    service: str, variant: str, everything: bool, tmp_path: Path
) -> None:
    files = edge_files(contexts(VARIANTS[variant], everything=everything)[service])
    directory = written(files, tmp_path)

    nginx_check.parse(directory)
    assert nginx_check.lint(directory) == []
    assert doubled_headers(files, tmp_path) == []


def test_a_stack_on_one_engine_has_no_owner() -> None:
    found = settings({"llm": {"enabled": True}}, KEY)
    (service, context), *others = edge_contexts(found, RELEASES[found.release]).items()

    assert (service, others) == (NGINX, [])
    assert not names(edge_files(context)) & (PASSING | OWNING)


def test_a_cluster_has_an_owner_where_the_proxy_is_on() -> None:
    assert list(contexts(llm=False)) == [NGINX]
    assert list(contexts()) == [LLM_EDGE, NGINX]
    assert not names(edge_files(contexts(llm=False)[NGINX])) & (PASSING | OWNING)


@pytest.mark.parametrize("everything", [False, True])
def test_each_has_the_files_of_its_role(everything: bool) -> None:
    found = {service: names(edge_files(one)) for service, one in contexts(everything=everything).items()}

    assert found[NGINX] >= PASSING
    assert not found[NGINX] & OWNING
    assert found[LLM_EDGE] >= OWNING
    assert not found[LLM_EDGE] & (PASSING | NOT_OWNED)


@pytest.mark.parametrize("everything", [False, True])
def test_nginx_counts_nothing_of_the_proxy_and_knows_no_key(everything: bool) -> None:
    files = edge_files(contexts(everything=everything)[NGINX])
    text = "\n".join(text for path, text in files.items() if not path.endswith(".js"))

    assert "llm_rate_0" not in text
    assert "secrets.json" not in text
    assert "zone=llm_usage" not in text
    assert "holysheep" not in text
    assert files[f"{EDGE_DIRECTORY}/llm/tables.json"].strip() == "{}"


def test_the_owner_answers_nginx_alone() -> None:
    files = edge_files(contexts(everything=True)[LLM_EDGE])
    listens = [
        words[1]
        for text in files.values()
        for line in text.splitlines()
        if (words := line.strip().rstrip(";").split())[:1] == ["listen"]
    ]

    assert [one for one in listens if not one.startswith("unix:")] == [
        str(ports.EDGE_OWNER),
        str(ports.EDGE_OWNER_INSIDE),
        f"127.0.0.1:{ports.EDGE_STATUS}",
    ]
    # A key for inside is accepted at the port for inside, as njs/llm.js compares it.
    tables = json.loads(files[f"{EDGE_DIRECTORY}/llm/tables.json"])
    assert tables["internal_port"] == str(ports.EDGE_OWNER_INSIDE)


# Settings that are no matter of the LLM proxy: they must not replace the only pod that counts.
ELSEWHERE: dict[str, dict[str, Any]] = {
    "origin": {"cors": {"v1": ["https://app.example.com"], "llm": ["https://app.example.com"]}},
    "limit": {"rateLimits": {"v1": {"requests": 7}}},
    "name": {"serverNames": ["dify.test"]},
    "uploads": {"maxUploadMegabytes": 100},
    "headers": {"requestHeaders": ["X-Mine"]},
    "pods": {"replicas": {"edge": 3}},
    "address": {"publicUrl": "https://dify.example.com", "trustedProxies": ["10.0.0.0/8"]},
    "networks": {"consoleAllowFrom": ["10.0.0.0/8"], "trustedProxies": ["10.1.0.0/16"]},
}


@pytest.mark.parametrize("change", ELSEWHERE)
def test_what_is_no_matter_of_the_proxy_leaves_the_owner_alone(change: str) -> None:
    def revisions(plain: dict[str, Any]) -> dict[str, str]:
        return {service: edge_configuration(one).revision for service, one in settled(plain).items()}

    before, after = revisions({}), revisions(ELSEWHERE[change])

    assert before[LLM_EDGE] == after[LLM_EDGE]
    assert before[NGINX] != after[NGINX]


def test_a_new_model_leaves_nginx_alone() -> None:
    more = {"llm": {"enabled": True, "prices": {"gpt-4.1": {"input": 1, "output": 1}}}}
    before, after = settled({}), settled(more)

    assert edge_configuration(before[NGINX]).revision == edge_configuration(after[NGINX]).revision
    assert edge_configuration(before[LLM_EDGE]).revision != edge_configuration(after[LLM_EDGE]).revision


def settled(plain: dict[str, Any]) -> dict[str, EdgeContext]:
    """Return the contexts with everything that is drawn at random for each reading of settings left out."""
    found = contexts(plain, everything=True)
    owner = found[LLM_EDGE]
    assert owner.llm is not None
    tables = {**json.loads(owner.llm.tables), "digest": ""}
    return {**found, LLM_EDGE: replace(owner, llm=replace(owner.llm, tables=json.dumps(tables)))}


def test_a_request_that_waits_is_sent_once() -> None:
    files = edge_files(contexts()[NGINX])
    part = files[f"{EDGE_DIRECTORY}/parts/owner.conf"]
    upstreams = files[f"{EDGE_DIRECTORY}/http/owner.conf"]

    assert part.count("proxy_next_upstream off;") == 2  # to the owner, and while a request waits
    assert "proxy_request_buffering on;" in part
    # It is there again before the time that a request waits is over; idle connections end before the owner does.
    owner = contexts()[NGINX].owner
    assert owner is not None
    grace = SERVICES[LLM_EDGE].stop_grace + PRE_STOP_SECONDS
    assert owner.hold_seconds >= grace + 15
    assert owner.idle_seconds + 1 < PRE_STOP_SECONDS
    assert upstreams.count(f"keepalive_timeout {owner.idle_seconds}s;") == 2


def test_render_shows_the_files_of_both_and_keys_where_they_are() -> None:
    found = settings(on_cluster({"llm": {"enabled": True}}), KEY)
    shown = {one.service: one.files for one in rendered_files(found)}
    keys = f"{EDGE_DIRECTORY}/llm/secrets.json"

    assert "<dify:llmKeys.holysheep>" in shown[LLM_EDGE][keys]
    assert keys not in shown[NGINX]
    assert f"{EDGE_DIRECTORY}/servers/owner.conf" in shown[LLM_EDGE]
    assert f"{EDGE_DIRECTORY}/servers/dify.conf" in shown[NGINX]


def test_commands_ask_the_one_that_counts() -> None:
    assert llm_usage.counter({NGINX: "one", LLM_EDGE: "two"}) == "two"
    assert llm_usage.counter({NGINX: "one", "api": "three"}) == "one"
    assert llm_usage.counter({}) == ""
