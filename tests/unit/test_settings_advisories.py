"""What stops no deployment and is reported: limits that undercut a tenant, and issued keys that no longer fit."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra.settings.given import Given
from infra.settings.proxy_keys import DIFY, issue, text_of
from infra.settings.stack import Reading, read
from support.configuration import PLAIN, SECRETS, settings

KEY = "hs-0123456789-0123456789-wxyz"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def tenant(**limits: int) -> dict[str, Any]:
    return {"enabled": True, "tenants": {"acme": {"app": "echo-chat", **limits}}}


def warnings(plain: dict[str, Any]) -> list[str]:
    values = {**PLAIN, **plain}
    reading = read(Given.of({**values, **SECRETS}, SECRETS), "unit")
    assert reading.problems == ()
    return list(reading.warnings)


@pytest.mark.parametrize(
    ("v1", "limits", "told"),
    [
        (
            {"requests": 5, "seconds": 60},
            {"requests": 60, "seconds": 60},
            "5 requests in 60 s, 5 of them together",
        ),
        ({"requests": 60, "seconds": 60, "burst": 5}, {"requests": 60, "seconds": 60}, "5 of them together"),
        ({"requests": 5, "seconds": 60}, {"requests": 0}, "may have (any number of requests)"),
        ({"concurrent": 5}, {"concurrent": 10}, "5 concurrent for each token"),
        ({"concurrent": 5}, {"concurrent": 0}, "may have (any number of concurrent)"),
    ],
)
def test_limits_of_a_token_below_those_of_its_tenant_are_said(
    v1: dict[str, int], limits: dict[str, int], told: str
) -> None:
    [line] = warnings({"rateLimits": {"v1": v1}, "oauth": tenant(**limits)})

    assert line.startswith("dify:rateLimits.v1: ")
    assert told in line
    assert "raise rateLimits.v1, or lower oauth.tenants.acme" in line


@pytest.mark.parametrize(
    "limits", [{}, {"requests": 5, "seconds": 60}, {"requests": 200, "seconds": 2, "concurrent": 100}]
)
def test_limits_that_fit_are_not_said(limits: dict[str, int]) -> None:
    assert warnings({"oauth": tenant(**limits)}) == []


def test_a_warning_is_one_of_pulumis(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)

    settings({"rateLimits": {"v1": {"concurrent": 5}}, "oauth": tenant(concurrent=10)})

    assert len(said) == 1


# --- keys of callers ---------------------------------------------------------------------------------------------


def with_keys(directory: Path, llm: dict[str, Any], **keys: dict[str, Any]) -> Reading:
    """Read a stack with issued keys, by their names."""
    file = directory / "Pulumi.unit.yaml"
    issued = [issue(name, NOW, **options)[1] for name, options in keys.items()]
    (directory / "proxy-keys.unit.json").write_text(text_of(issued))
    values = {**PLAIN, "llm": {"enabled": True, **llm}, **SECRETS, "llmKeys": json.dumps({"holysheep": KEY})}
    return read(Given.of(values, [*SECRETS, "llmKeys"]), "unit", settings_file=file)


def usable(reading: Reading) -> dict[str, tuple[str, ...]]:
    """Return the keys that work, with their models; none of them: every model."""
    llm = reading.settings.llm
    assert llm is not None
    return {key.name: key.models for key in llm.keys if key.name != DIFY}


def test_a_key_for_a_model_that_is_gone_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    reading = with_keys(tmp_path, {}, old={"models": ("gpt-3", "gpt-4.1")}, web={})

    assert reading.problems == ()
    assert reading.warnings == (
        "proxy key old: gpt-3 is not served: requests for it fail; add it to dify:llm.models, or issue a new key",
    )
    # It opens what it opened, and nothing more.
    assert usable(reading) == {"old": ("gpt-3", "gpt-4.1"), "web": ()}


def test_a_key_with_a_budget_cannot_use_a_model_without_a_price(tmp_path: Path) -> None:
    llm = {"models": {"own": ["holysheep"], "gpt-4.1": ["holysheep"]}}

    reading = with_keys(
        tmp_path, llm, every={"budget": 5.0}, one={"budget": 5.0, "models": ("own",)}, free={"budget": 0.0}
    )

    assert reading.problems == ()
    assert [line.partition(":")[0] for line in reading.warnings] == ["proxy key every", "proxy key one"]
    assert all("own has no price, and the key has a budget" in line for line in reading.warnings)
    # A key without a model would open every model: it is left out.
    assert usable(reading) == {"every": ("gpt-4.1",), "free": ()}


def test_a_budget_of_every_caller_still_needs_every_price(tmp_path: Path) -> None:
    reading = with_keys(tmp_path, {"models": {"own": ["holysheep"]}, "monthlyBudget": 5}, web={})

    assert len(reading.problems) == 1
    assert "dify:llm.prices: 'own': has no price, and there is a budget" in reading.problems[0]


def test_revoked_keys_are_not_reported(tmp_path: Path) -> None:
    revoked = {"models": ("gpt-3",), "revoked": "2026-01-01T00:00:00+00:00"}

    assert with_keys(tmp_path, {}, old=revoked).warnings == ()
