"""The settings of the LLM proxy, right and wrong."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra.catalogue.llm_presets import PRESETS, key_problem
from infra.settings import proxy_keys
from infra.settings.llm import Llm, Target
from infra.settings.program import load
from infra.settings.proxy_keys import ProxyKeyError
from support.certificates import issue as certificate
from support.configuration import configure, settings

KEY = "hs-" + "k" * 40
OPENAI_KEY = "sk-" + "k" * 40


def read(llm: Mapping[str, Any] | None = None, keys: Mapping[str, str] | None = None) -> Llm:
    found = settings(
        {"llm": {"enabled": True, **(llm or {})}}, {"llmKeys": json.dumps(keys or {"holysheep": KEY})}
    ).llm
    assert found is not None
    return found


def test_it_is_off_by_default() -> None:
    assert settings().llm is None


def test_defaults_lead_to_holysheep() -> None:
    llm = read()

    assert [(one.base_url, one.ca, one.timeout_seconds) for one in llm.upstreams] == [
        ("https://api.holysheep.ai/v1", "", 300)
    ]
    assert set(llm.models) == {"gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash", "deepseek-v3.2"}
    assert set(llm.models.values()) == {(Target(upstream="holysheep", model=model),) for model in llm.models}
    assert set(llm.models) <= set(llm.prices)


@pytest.mark.parametrize("preset", ["openai", "anthropic"])
def test_an_upstream_named_like_a_preset_is_one(preset: str) -> None:
    key = PRESETS[preset].prefixes[0] + "k" * 40

    llm = read({"upstreams": {preset: {}}, "models": {"m": preset}}, {preset: key})

    assert [(one.preset, one.base_url) for one in llm.upstreams] == [(preset, PRESETS[preset].base_url)]


def test_an_upstream_may_have_another_name_for_a_model(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(certificate(ca=True).pem)
    upstreams = {
        "own": {"preset": "litellm", "baseUrl": "http://litellm:4000/", "timeoutSeconds": 5},
        "far": {"baseUrl": "https://llm.example.com:8443/api/v1/", "caFile": str(ca)},
    }

    llm = read({"upstreams": upstreams, "models": {"gpt": ["own:x/y:z", "far"]}}, {"own": KEY, "far": KEY})

    assert llm.models["gpt"] == (
        Target(upstream="own", model="x/y:z"),
        Target(upstream="far", model="gpt"),
    )
    assert [one.base_url for one in llm.upstreams] == [
        "http://litellm:4000",
        "https://llm.example.com:8443/api/v1",
    ]
    assert llm.upstreams[1].ca == ca.read_text()


def test_another_key_has_another_digest() -> None:
    one, other = read().upstreams[0], read(keys={"holysheep": KEY + "x"}).upstreams[0]

    assert one.key_digest != other.key_digest
    assert KEY not in repr(one)


@pytest.mark.parametrize(
    ("llm", "keys", "said"),
    [
        ({}, {}, "dify:llmKeys.holysheep: the key of holysheep is not set; put it into HOLYSHEEP_API_KEY"),
        ({}, {}, "https://www.holysheep.ai/register"),
        ({}, {"holysheep": "short"}, "has 5 characters, and a key of holysheep has 20 or more"),
        ({}, {"holysheep": "sk-ant-" + "k" * 40}, "begins like a key of anthropic"),
        ({}, {"holysheep": "kkkkkkkkkk\nkkkkkkkkkkkkkkkkkkkkk"}, "characters that no key has"),
        ({}, {"holysheep": KEY, "other": KEY}, "dify:llmKeys.other: llm.upstreams has no such upstream"),
        ({"upstreams": {}}, {}, "dify:llm.upstreams: '{}': no upstream"),
        ({"upstreams": {"Up": {}}}, {}, "'Up': cannot name an upstream"),
        ({"upstreams": {"signing": {}}}, {}, "'signing': cannot name an upstream"),
        ({"upstreams": {"database": {}}}, {}, "'database': cannot name an upstream"),
        ({"upstreams": {"holysheep": "x"}}, {}, "dify:llm.upstreams.holysheep: 'x': not an object"),
        (
            {"upstreams": {"holysheep": {"url": 1}}},
            {},
            "dify:llm.upstreams.holysheep.url: '1': no such setting",
        ),
        (
            {"upstreams": {"holysheep": {"preset": "x"}}},
            {},
            "'x': not a possible value; use one of holysheep",
        ),
        (
            {"upstreams": {"holysheep": {"caFile": "/no"}}},
            {},
            "caFile: '/no': is not a file with certificates",
        ),
        ({"upstreams": {"holysheep": {"timeoutSeconds": 0}}}, {}, "timeoutSeconds: '0': not a whole number"),
        ({"models": {}}, {}, "dify:llm.models: '{}': no model is served"),
        ({"models": {"m": []}}, {}, "dify:llm.models.m: '[]': is not a list of upstreams"),
        ({"models": {"m": ["nope"]}}, {}, "dify:llm.models.m: 'nope': llm.upstreams has no such upstream"),
        ({"models": {"m": ["holysheep", "holysheep:x"]}}, {}, "an upstream is listed twice"),
        ({"models": {'m"': ["holysheep"]}}, {}, "is not a model's name"),
        ({"models": {"m": ["holysheep:a b"]}}, {}, "has no model's name after the ':'"),
        ({"embeddings": {"gpt-4.1": ["holysheep"]}}, {}, "'gpt-4.1': is in llm.models too"),
        ({"maxBodyMegabytes": 51}, {}, "dify:llm.maxBodyMegabytes: '51'"),
        ({"prices": {"m": {"input": 1, "longest": 0}}}, {}, "dify:llm.prices.m.longest: '0'"),
        ({"limits": {"requests": 7, "seconds": 50}}, {}, "dify:llm.limits.requests"),
        ({"monthlyBudget": -1}, {}, "dify:llm.monthlyBudget: '-1'"),
        ({"monthlyBudget": 5, "models": {"m": ["holysheep"]}}, {}, "dify:llm.prices: 'm': has no price"),
        ({"prices": {"m": {"input": "x"}}}, {}, "dify:llm.prices.m.input: 'x': not a number"),
        ({"nothing": 1}, {}, "dify:llm.nothing: '1': no such setting"),
    ],
)
def test_what_cannot_work_is_told(llm: dict[str, Any], keys: dict[str, str], said: str) -> None:
    given = keys or ({} if "not set" in said or "register" in said else {"holysheep": KEY})

    configure({"llm": {"enabled": True, **llm}}, {"llmKeys": json.dumps(given)})
    with pytest.raises(pulumi.RunError) as refused:
        load(pulumi.Config("dify"), "unit")

    assert said in str(refused.value)
    assert not any(key in str(refused.value) for key in given.values() if len(key) > 8)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is empty, and this preset has none of its own"),
        ("llm.example.com", "must be an http(s) URL"),
        ("ftp://llm.example.com", "must be an http(s) URL"),
        ("https://user@llm.example.com", "must be an http(s) URL"),
        ("https://llm.example.com/v1?x=1", "must be an http(s) URL"),
        ("https://llm.example.com/$x", "its path has characters other"),
        ("https://llm.example.com/v1;", "its path has characters other"),
        ("https://LLM example/v1", "host"),
        ("https://[::1]/v1", "IPv6"),
        ("https://llm.example.com:x/v1", "is not a URL"),
        ("http://llm.example.com/v1", "the key would be sent in plain text"),
        ("http://8.8.8.8/v1", "the key would be sent in plain text"),
    ],
)
def test_addresses_that_cannot_work(url: str, said: str) -> None:
    with pytest.raises(pulumi.RunError, match=r"llm\.upstreams\.own\.baseUrl") as refused:
        read({"upstreams": {"own": {"baseUrl": url}}, "models": {"m": "own"}}, {"own": KEY})

    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("llm", "said"),
    [
        ({"engine": "apache"}, "dify:llm.engine: 'apache': not a possible value"),
        ({"upstreams": {"Up": {}}}, "'Up': cannot name an upstream"),
        (
            {"upstreams": {"up": {"baseUrl": "ftp://llm.example"}}},
            "dify:llm.upstreams.up.baseUrl: 'ftp://llm.example'",
        ),
        ({"upstreams": {"up": {"baseUrl": "http://nginx:8082/llm/v1"}}}, "is the proxy itself"),
        ({"upstreams": {"holysheep": {"caFile": "/no"}}}, "caFile: '/no': is not a file with certificates"),
        ({"models": {"m": []}}, "dify:llm.models.m: '[]': is not a list of upstreams"),
        ({"maxBodyMegabytes": 51}, "dify:llm.maxBodyMegabytes: '51'"),
        ({"limits": {"concurrent": -1}}, "dify:llm.limits.concurrent: '-1'"),
        ({"monthlyBudget": -1}, "dify:llm.monthlyBudget: '-1'"),
        ({"prices": {"m": {"input": "x"}}}, "dify:llm.prices.m.input: 'x': not a number"),
    ],
)
def test_wrong_value_of_a_proxy_that_is_off_is_an_error(llm: dict[str, Any], said: str) -> None:
    configure({"llm": {"enabled": False, **llm}})

    with pytest.raises(pulumi.RunError) as caught:
        load(pulumi.Config("dify"), "unit")

    _, *problems = str(caught.value).splitlines()
    assert len(problems) == 1, problems
    assert said in problems[0]


@pytest.mark.parametrize(
    "llm",
    [
        {"upstreams": {"own": {"baseUrl": "http://llm/v1"}}},
        {"upstreams": {}, "models": {}},
        {"models": {"m": ["later"]}, "monthlyBudget": 5},
    ],
)
def test_proxy_that_is_off_may_be_set_up_step_by_step(llm: dict[str, Any]) -> None:
    assert settings({"llm": llm}).llm is None


def test_keys_in_plain_text_are_refused() -> None:
    configure({"llm": {"enabled": True}, "llmKeys": {"holysheep": KEY}})

    with pytest.raises(pulumi.RunError, match="stored in plain text") as refused:
        load(pulumi.Config("dify"), "unit")
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    ("preset", "key", "fits"),
    [
        ("holysheep", KEY, True),
        ("holysheep", "k" * 19, False),
        ("holysheep", "sk-proj-" + "k" * 40, False),
        ("openai", OPENAI_KEY, True),
        ("openai", KEY, False),
        ("anthropic", "sk-ant-" + "k" * 40, True),
        ("anthropic", OPENAI_KEY, False),
        ("litellm", "sk-1234567", True),
        ("oneapi", "sk-ant-" + "k" * 40, True),
        ("custom", "with space", False),
        ("custom", "ключключключ", False),
    ],
)
def test_keys_by_preset(preset: str, key: str, fits: bool) -> None:
    problem = key_problem(preset, key)

    assert (problem == "") is fits
    assert key not in problem


# --- keys issued to callers --------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_issued_keys_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "proxy-keys.unit.json"
    secret, one = proxy_keys.issue("web", NOW, budget=5.0, models=("m",), expires="2026-02-01T00:00:00+00:00")
    _, other = proxy_keys.issue("app", NOW, concurrent=3)

    path.write_text(proxy_keys.text_of([one, other]))

    assert proxy_keys.read(path) == (one, other)
    assert secret not in path.read_text()
    assert secret.startswith(one.prefix)
    assert one.valid_at(NOW)
    assert not one.valid_at(datetime(2026, 2, 1, tzinfo=UTC))
    assert not proxy_keys.revoked([one], "web", NOW)[0].valid_at(NOW)
    assert proxy_keys.read(tmp_path / "none.json") == ()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [1]}',
        '{"version": 1, "keys": [{"name": "x"}]}',
        '{"version": 1, "keys": [{"name": "X", "prefix": "", "sha256": "%s", "created": ""}]}' % ("a" * 64),
        '{"version": 1, "keys": [{"name": "x", "prefix": "", "sha256": "a", "created": ""}]}',
        '{"version": 1, "keys": [{"name": "x", "prefix": "", "sha256": "%s", "created": "2026-01-01"}]}'
        % ("a" * 64),
    ],
)
def test_a_damaged_file_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "proxy-keys.unit.json"
    path.write_text(text)

    with pytest.raises(ProxyKeyError, match=r"proxy-keys\.unit\.json"):
        proxy_keys.read(path)


def test_one_name_has_one_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = [proxy_keys.issue("web", NOW)[1] for _ in range(2)]
    path.write_text(proxy_keys.text_of(keys))

    with pytest.raises(ProxyKeyError, match="named web"):
        proxy_keys.read(path)
    path.write_text(proxy_keys.text_of([*proxy_keys.revoked(keys[:1], "web", NOW), keys[1]]))
    assert len(proxy_keys.read(path)) == 2


def test_a_link_leads_to_the_real_settings(tmp_path: Path) -> None:
    real = tmp_path / "stacks" / "Pulumi.dev.yaml"
    real.parent.mkdir()
    real.touch()
    link = tmp_path / "Pulumi.dev.yaml"
    link.symlink_to(real)

    assert proxy_keys.file_of(link, "dev") == real.with_name("proxy-keys.dev.json")
