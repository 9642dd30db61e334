"""The LLM proxy's part of nginx's files, parsed."""

import dataclasses
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue.releases import RELEASES
from infra.edge import check as nginx_check
from infra.edge import llm as edge_llm
from infra.edge.context import EdgeContext, edge_context
from infra.edge.paths import EDGE_DIRECTORY
from infra.edge.render import edge_configuration
from infra.settings import proxy_keys
from infra.settings.stack import Settings
from support.configuration import resolved, settings
from tests.integration.edge.llm import settings_of_oauth
from tests.unit.test_render import (
    Directive,
    edge_files,
    evaluated,
    locations,
    looked_up,
    maps,
    parsed,
    walk,
    written,
)

KEYS = {"holysheep": "hs-" + "k" * 40, "backup": "sk-" + "b" * 40}
LLM: dict[str, Any] = {
    "enabled": True,
    "upstreams": {"holysheep": {}, "backup": {"preset": "openai", "timeoutSeconds": 7}},
    "models": {"gpt-4.1": ["holysheep", "backup:other"]},
    "embeddings": {"text-embedding-3-small": ["backup"]},
}
# What starts, and what is counted of all requests.
OTHER_SCRIPTS = {"starting.conf", "status.conf", "traffic.conf"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stack(*callers: proxy_keys.ProxyKey, keys: dict[str, str] | None = None, **plain: Any) -> Settings:
    found = settings({"llm": LLM, **plain}, {"llmKeys": json.dumps(keys or KEYS)})
    assert found.llm is not None
    return dataclasses.replace(found, llm=dataclasses.replace(found.llm, keys=callers))


def context_of(found: Settings) -> EdgeContext:
    return edge_context(found, RELEASES[found.release])


def upstream_locations(tmp_path: Path) -> dict[str, list[Directive]]:
    files = parsed(edge_files(context_of(stack())), tmp_path)
    found = {
        " ".join(one["args"]): one["block"]
        for _, one in walk(files["parts/llm.conf"])
        if one["directive"] == "location"
    }
    return {
        name: block for name, block in found.items() if any(d["directive"] == "proxy_pass" for d in block)
    }


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("images", ["local", "registry"])
@pytest.mark.parametrize(("log", "oauth"), [("all", True), ("errors", False), ("off", True)])
def test_it_parses_and_gixy_finds_nothing(
    release: str, images: str, log: str, oauth: bool, tmp_path: Path
) -> None:
    found = stack(images=images, release=release, accessLog=log)
    context = context_of(dataclasses.replace(found, oauth=settings_of_oauth() if oauth else None))

    directory = written(edge_files(context), tmp_path)

    nginx_check.parse(directory)
    assert nginx_check.lint(directory) == []


def test_gixy_still_finds_the_same_with_another_variable(tmp_path: Path) -> None:
    files = edge_files(context_of(stack()))
    part = f"{EDGE_DIRECTORY}/parts/llm_upstream.conf"
    files[part] = files[part].replace("Bearer $llm_key", "Bearer $llm_body")

    assert {one.plugin for one in nginx_check.lint(written(files, tmp_path))} == {"http_splitting"}


def test_nothing_of_it_is_there_when_it_is_off(tmp_path: Path) -> None:
    found = settings()
    files = edge_files(edge_context(found, RELEASES[found.release]))

    assert not [
        one
        for path, directives in parsed(files, tmp_path).items()
        for _, one in walk(directives)
        if (one["directive"].startswith("js_") and path.rpartition("/")[2] not in OTHER_SCRIPTS)
        or "llm" in " ".join(one["args"])
    ]
    assert not edge_llm.private_files(None)
    assert not edge_llm.public_files(None)
    assert not edge_llm.hidden_files(None)


@pytest.mark.parametrize(("images", "loaded"), [("local", 0), ("registry", 1)])
def test_the_official_image_has_to_load_njs(images: str, loaded: int, tmp_path: Path) -> None:
    top = parsed(edge_files(context_of(stack(images=images))), tmp_path)["nginx.conf"]

    assert len([one for one in top if one["directive"] == "load_module"]) == loaded


@pytest.mark.parametrize("oauth", [False, True])
def test_no_way_to_an_upstream_without_the_caller_being_asked(oauth: bool, tmp_path: Path) -> None:
    found = dataclasses.replace(stack(), oauth=settings_of_oauth() if oauth else None)
    files = parsed(edge_files(context_of(found)), tmp_path)["parts/llm.conf"]
    public = {
        " ".join(one["args"]): one["block"]
        for _, one in walk(files)
        if one["directive"] == "location" and not one["args"][-1].startswith("@")
    }

    assert [one["directive"] for one in public.pop("/llm/")] == ["return"]
    assert ("= /_llm_token" in public) is oauth
    assert "internal" in [one["directive"] for one in public.pop("= /_llm_token", [])] or not oauth
    # Where larger bodies go on, behind the same questions.
    for handler in ("chat", "embeddings"):
        assert "internal" in [one["directive"] for one in public.pop(f"= /llm/_file/{handler}")]
    assert len(public) == 5
    for match, block in public.items():
        directives = {one["directive"]: one["args"] for one in block}
        assert "proxy_pass" not in directives, match
        # The rate is counted after the concurrency, in the next location.
        assert "limit_req" not in directives, match
        if "/models" in match or "_file" in match:
            assert directives["try_files"][-1].startswith("@llm_counted_"), match
        else:
            assert directives["js_content"][0] in {"llm.chat", "llm.embeddings"}, match
        asked = [(one["args"], one["block"][0]["args"]) for one in block if one["directive"] == "if"]
        # Before limits and body: nginx's rewrite phase comes first, whatever the order here.
        larger = [one for one in asked if one[0] == ["$llm_large"]]
        assert len(larger) == ("/models" not in match), match
        assert asked[oauth:] == [
            (["$llm_denied", "=", "401"], ["401"]),
            (["$llm_denied", "=", "403"], ["403"]),
            *larger,
        ], match


@pytest.mark.parametrize("oauth", [False, True])
def test_a_refused_caller_is_told_why(oauth: bool, tmp_path: Path) -> None:
    found = dataclasses.replace(stack(), oauth=settings_of_oauth() if oauth else None)
    bodies = maps(edge_files(context_of(found)), tmp_path)["$edge_error_body"]

    def code(looked: str) -> str:
        return str(json.loads(looked_up(bodies, looked))["error"]["code"])

    reasons = {
        "401 missing": "unauthorized",
        "401 unknown": "invalid_api_key",
        "401 expired": "expired_api_key",
        "401 told": "invalid_token",
        "403 internal": "internal_api_key",
        **({"403 scope": "insufficient_scope"} if oauth else {}),
    }
    assert {reason: code(f"openai {reason}") for reason in reasons} == reasons
    # Every other error is that of the status alone.
    for other in ("openai 401 ", "openai 429 ", "dify 401 unknown"):
        assert looked_up(bodies, other) == "$edge_plain_body"
    script = next(
        text for path, text in edge_files(context_of(found)).items() if path.endswith("/njs/llm.js")
    )
    set_by_script = set(re.findall(r"'(missing|unknown|expired|internal)'", script))
    assert set_by_script == {"missing", "unknown", "expired", "internal"}


def test_tasks_are_those_of_the_script(tmp_path: Path) -> None:
    found = dataclasses.replace(stack(), oauth=settings_of_oauth())
    files = edge_files(context_of(found))
    script = next(text for path, text in files.items() if path.endswith("/njs/others.js"))
    known = re.findall(r"return \{([a-z, ]+)\};", script)[-1].split(", ")

    tasks = [
        one["block"]
        for _, one in walk(parsed(files, tmp_path)["parts/llm.conf"])
        if one["directive"] == "location" and "llm.other" in str(one["block"])
    ]
    named = [
        [one["args"][1] for one in block if one["directive"] == "set" and one["args"][0] == "$llm_task"]
        for block in tasks
    ]
    assert sorted(name for names in named for name in names) == sorted(known)
    assert all(len(names) == 1 for names in named)


def test_a_long_body_is_read_by_the_pattern_of_a_short_one(tmp_path: Path) -> None:
    files = parsed(edge_files(context_of(stack())), tmp_path)
    asked = [
        one for _, one in walk(files["http/llm_body.conf"]) if one["args"] == ["$request_body", "$llm_read"]
    ]
    (found,) = [one for one in asked[0]["block"] if one["directive"] != "default"]
    *_, condition = files["parts/llm_long.conf"]

    assert condition["directive"] == "if"
    assert condition["args"][:2] == ["$request_body", "~"]
    assert condition["args"][2] == found["directive"].removeprefix("~")
    assert condition["block"][0]["args"] == ["$llm_long_read", *found["args"]]
    # Only scripts lead there, and they have asked who calls.
    (place,) = [one for _, one in walk(files["parts/llm.conf"]) if one["args"] == ["@llm_long"]]
    assert [(one["directive"], one["args"]) for one in place["block"]] == [
        ("include", ["parts/llm_long.conf"]),
        ("set", ["$llm_task", "long"]),
        ("js_content", ["llm.other"]),
    ]


def test_a_token_is_verified_on_its_way_to_the_limits(tmp_path: Path) -> None:
    found = dataclasses.replace(stack(), oauth=settings_of_oauth())
    files = parsed(edge_files(context_of(found)), tmp_path)["parts/llm.conf"]
    blocks = {
        " ".join(one["args"]): {d["directive"]: d["args"] for d in one["block"]}
        for _, one in walk(files)
        if one["directive"] == "location"
    }

    for handler in ("chat", "embeddings", "models"):
        way = blocks[f"@llm_token_{handler}"]
        assert way["auth_request"] == ["/_llm_token"]
        assert way["try_files"][-1] == f"@llm_limited_{handler}"
        limited = blocks[f"@llm_limited_{handler}"]
        if handler == "models":
            assert limited["try_files"][-1] == "@llm_counted_models"
            limited = blocks["@llm_counted_models"]
            assert limited["set"] == ["$llm_task", "models"]
        assert limited["js_content"] == [f"llm.{'other' if handler == 'models' else handler}"]
    # Nothing else leads there.
    reached = [" ".join(d["args"]) for _, d in walk(files) if "@llm_limited" in " ".join(d["args"])]
    assert len([one for one in reached if not one.startswith("@")]) == 3


@pytest.mark.parametrize("oauth", [False, True])
def test_tokens_are_asked_about_only_where_there_is_oauth(oauth: bool, tmp_path: Path) -> None:
    found = stack()
    context = context_of(dataclasses.replace(found, oauth=settings_of_oauth() if oauth else None))
    files = parsed(edge_files(context), tmp_path)

    asked = {
        " ".join(one["args"]): one["block"]
        for _, one in walk(files["parts/llm.conf"])
        if one["directive"] == "location" and "_llm_token" in one["args"][-1]
    }
    assert len(asked) == oauth
    for block in asked.values():
        said = {d["directive"]: d["args"] for d in block}
        assert "internal" in said
        assert said["proxy_pass_request_headers"] == said["proxy_pass_request_body"] == ["off"]
        assert said["proxy_cache_key"] == ["$http_authorization"]


def test_every_upstream_is_verified_and_gets_headers_of_ours_only(tmp_path: Path) -> None:
    blocks = upstream_locations(tmp_path)

    assert len(blocks) == 2 * 2 * 2 * 2
    for name, block in blocks.items():
        said = {d["directive"]: d["args"] for d in block}
        assert said["include"] == ["parts/llm_upstream.conf"], name
        assert said["proxy_pass"][0].startswith("https://llm_"), name
        assert said["proxy_ssl_trusted_certificate"] == [edge_llm.PUBLIC_CAS], name
        sent = [d["args"] for d in block if d["directive"] == "proxy_set_header"]
        assert said["proxy_ssl_name"] == sent[0][1:], name
        # The beginning of a body in a file follows in the last header of all, and its length is ours.
        in_file = name.removesuffix("_last").endswith("_file")
        assert [one[0] for one in sent] == ["Host", *["Content-Length"] * in_file, "Content-Type"], name
        assert ("proxy_set_body" in said) is not in_file, name
    common = parsed(edge_files(context_of(stack())), tmp_path / "again")["parts/llm_upstream.conf"]
    said = {d["directive"]: d["args"] for d in common}
    assert said["proxy_ssl_verify"] == said["proxy_ssl_server_name"] == ["on"]
    assert said["proxy_pass_request_headers"] == ["off"]
    assert {"X-Accel-Redirect"} <= set(said["proxy_ignore_headers"])
    assert (said["sub_filter"][0], said["sub_filter_once"], said["sub_filter_types"]) == (
        "$llm_key",
        ["off"],
        ["*"],
    )


def test_only_the_last_upstreams_own_errors_pass(tmp_path: Path) -> None:
    for name, block in upstream_locations(tmp_path).items():
        pages = [d["args"] for d in block if d["directive"] == "error_page"]
        own = [args for args in pages if args[-1] == "@llm_refused"]
        (caught,) = [args for args in pages if args not in own]
        # The caller's rate: counted here for a body in memory, before it for one in a file.
        in_file = "_file" in name
        statuses = [d["args"] for d in block if d["directive"] == "limit_req_status"]
        assert own == ([] if in_file else [[*statuses[0], "=", "@llm_refused"]]), name
        assert [d["directive"] for d in block].count("limit_req") == (0 if in_file else 1), name
        assert not {args[0] for args in own} & {*caught}, name
        assert caught[-1] == ("@llm_failed" if name.endswith("_last") else "@llm_next"), name
        assert {"401", "403"} <= set(caught), name
        assert ("429" in caught) is not name.endswith("_last"), name


def test_dify_keeps_its_routes(tmp_path: Path) -> None:
    with_it = locations(edge_files(context_of(stack())), tmp_path / "with")
    found = settings()
    without = locations(edge_files(edge_context(found, RELEASES[found.release])), tmp_path / "without")

    assert set(with_it) == set(without)


def test_callers_with_the_same_limits_share_a_zone() -> None:
    callers = [
        proxy_keys.issue("a", NOW)[1],
        proxy_keys.issue("b", NOW, requests_per_minute=5)[1],
        proxy_keys.issue("c", NOW, requests_per_minute=5)[1],
        proxy_keys.issue("d", NOW, requests_per_minute=0, concurrent=0)[1],
    ]
    llm = context_of(stack(*callers)).llm
    assert llm is not None

    assert [
        (one.rate and one.rate.rate, one.connections and one.connections.most) for one in llm.classes
    ] == [
        ("1r/s", 10),
        ("5r/m", 10),
        (None, None),
    ]


def test_keys_are_in_the_private_file_alone() -> None:
    secret, caller = proxy_keys.issue("web", NOW, budget=3.0)
    found = stack(caller)

    files = edge_files(context_of(found))
    private = resolved(edge_llm.private_files(found.llm))

    told = json.loads(private[edge_llm.SECRETS_FILE])
    assert told["keys"] == KEYS
    assert told["callers"][caller.sha256]["budget"] == 3.0
    assert secret not in private[edge_llm.SECRETS_FILE]
    everything = "\n".join([*files.values(), *edge_llm.hidden_files(found.llm).values()])
    assert not any(key in everything for key in (*KEYS.values(), secret, caller.sha256))


def test_another_key_or_caller_is_another_configuration() -> None:
    _, caller = proxy_keys.issue("web", NOW)
    revisions = {
        edge_configuration(context_of(one)).revision
        for one in (
            stack(),
            stack(keys={**KEYS, "backup": "sk-" + "c" * 40}),
            stack(caller),
            stack(dataclasses.replace(caller, budget=1.0)),
        )
    }

    assert len(revisions) == 4


def test_only_preflights_of_the_proxy_allow_the_headers_of_openais_clients(tmp_path: Path) -> None:
    value = evaluated(edge_files(context_of(stack())), tmp_path)

    def told(key: str) -> str:
        preflight, group, origin = re.fullmatch("([01])([a-z0-9]*) (.*)", key).groups()  # type: ignore[union-attr]
        given = {"$cors_preflight": preflight, "$edge_group": group, "$cors_origin": origin}
        return value("$cors_headers", given).lower()

    for name in ("x-stainless-lang", "x-stainless-async", "x-stainless-retry-count", "openai-project"):
        assert name in told("1llm https://app.example.com")
        assert name not in told("1v1 https://app.example.com")
    assert "authorization" in told("1v1 https://app.example.com")
    assert "authorization" in told("1 https://app.example.com")
    # No preflight, and an origin that is not allowed.
    for key in ("0llm https://app.example.com", "1llm ", "0v1 https://app.example.com", "1v1 "):
        assert told(key) == ""
