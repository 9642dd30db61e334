"""The stand-in takes the environment that the kit renders for each service and release, and refuses what Dify refuses.

These tests run the validation in this process; tests/integration/test_standin_start.py sees the images do it.
"""

import os
from collections.abc import Mapping
from typing import Any

import pytest
from dify_standin import config, facts

from infra.catalogue.releases import RELEASES
from infra.catalogue.variables import Variable
from infra.services.environment import environment
from support.configuration import resolved, settings

ROLES = {service: role for role, service in facts.SERVICES.items()} | dict.fromkeys(
    ("api-websocket", "worker", "worker-beat", "migration"), "api"
)
RICH: Mapping[str, Any] = {
    "publicUrl": "https://console.example.com",
    "urls": {"app": "https://chat.example.com", "files": "https://files.example.com"},
    "tls": {"mode": "selfsigned"},
    "cors": {"v1": ["https://a.example"], "console": ["https://b.example"], "api": ["https://c.example"]},
    "storage": {"type": "s3", "bucket": "files", "accessKey": "id", "endpoint": "https://s3.example.com"},
    "mail": {"type": "smtp", "from": "dify@example.com", "server": "mail.example.com", "username": "u"},
    "login": {"social": True, "githubClientId": "gh", "googleClientId": "go", "accessTokenMinutes": 30},
    "limits": {"activeRequests": 5, "workflowSteps": 100},
    "retention": {"workflowRunDays": 30, "messageDays": 365},
    "telemetry": {"otlpEndpoint": "http://otlp.example.com:4318", "samplingRate": 0.5},
    "plugins": {"marketplace": False, "maxPackageMegabytes": 100},
    "maxUploadMegabytes": 50,
    "checkUpdates": False,
    "logLevel": "DEBUG",
}
RICH_SECRETS = {
    "storageSecretKey": "storage-secret",
    "mailPassword": "mail-secret",
    "githubClientSecret": "gh-secret",
    "googleClientSecret": "go-secret",
}
KINDS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "default": ({}, {}),
    "rich": (RICH, RICH_SECRETS),
}
STARTS = [
    (release, service)
    for release in RELEASES
    for service in ROLES
    if service == "migration" or RELEASES[release].has(service)
]
# A value that is wrong for the type, whatever the bounds are.
WRONG = {
    "integer": "many",
    "number": "some",
    "boolean": "maybe",
    "url": "nowhere",
    "object": "[",
    "duration": "soon",
}
# pydantic's words, and those of the daemon's Go.
WORDS = {
    "api": ("validation error for DifyConfig", "input_value="),
    "agent-backend": ("validation error for ServerSettings", "input_value="),
    "plugin-daemon": ("envconfig.Process: assigning", "invalid syntax"),
}


def rendered(release: str, service: str, kind: str = "default") -> dict[str, str]:
    plain, hidden = KINDS[kind]
    found = settings({"release": release, **plain}, hidden)
    return resolved(environment(service, found, RELEASES[release]))


def check(monkeypatch: pytest.MonkeyPatch, service: str, variables: Mapping[str, str]) -> None:
    """Run the validation with these variables and no other."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config.check(ROLES[service])


def wrong_value(variable: Variable) -> str | None:
    """Return a value that the variable does not take; None for text, which takes any."""
    return "nonsense" if variable.values else WRONG.get(variable.type)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("release", "service"), STARTS)
def test_service_takes_what_the_kit_renders(
    monkeypatch: pytest.MonkeyPatch, release: str, service: str, kind: str
) -> None:
    check(monkeypatch, service, rendered(release, service, kind))


@pytest.mark.parametrize(("release", "service"), STARTS)
def test_one_invalid_value_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], release: str, service: str
) -> None:
    variables = rendered(release, service)
    known = RELEASES[release].variables(service)
    invalid = {
        name: wrong for name in variables if name in known and (wrong := wrong_value(known[name])) is not None
    }

    assert invalid or service in {"web", "local-sandbox", "agent-backend"}, "nothing of it is typed"
    for name, value in invalid.items():
        with pytest.raises(SystemExit) as ended:
            check(monkeypatch, service, variables | {name: value})
        said = capsys.readouterr().err
        assert ended.value.code == 1, name
        assert name in said
        assert value in said, name
        assert all(word in said for word in WORDS.get(ROLES[service], ())) or known[name].values, said


BOUNDS = [
    ("ACCESS_TOKEN_EXPIRE_MINUTES", "0", "Input should be greater than 0 [type=greater_than"),
    ("DB_PORT", "-1", "Input should be greater than"),
    (
        "SWAGGER_UI_ENABLED",
        "maybe",
        "Input should be a valid boolean, unable to interpret input [type=bool_parsing",
    ),
    ("SQLALCHEMY_POOL_SIZE", "many", "unable to parse string as an integer [type=int_parsing"),
    (
        "DEPLOYMENT_EDITION",
        "SELF_HOSTED",
        "Input should be 'COMMUNITY', 'ENTERPRISE' or 'CLOUD' [type=literal_error, input_value='SELF_HOSTED'",
    ),
]


@pytest.mark.parametrize("wrong", BOUNDS, ids=[one[0] for one in BOUNDS])
@pytest.mark.parametrize("service", ["api", "migration", "worker"])
def test_api_says_what_pydantic_says(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    service: str,
    wrong: tuple[str, str, str],
) -> None:
    name, value, said = wrong
    with pytest.raises(SystemExit):
        check(monkeypatch, service, rendered("1.17.1", service) | {name: value})

    told = capsys.readouterr().err
    assert "1 validation error for DifyConfig" in told
    assert f"{name}\n  " in told
    assert said in told
    assert "https://errors.pydantic.dev/2.12/v/" in told


def test_all_problems_are_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {name: value for name, value, _ in BOUNDS}

    with pytest.raises(SystemExit):
        check(monkeypatch, "api", rendered("1.17.1", "api") | wrong)

    assert f"{len(BOUNDS)} validation errors for DifyConfig" in capsys.readouterr().err


@pytest.mark.parametrize("release", ["1.12.1", "1.14.2"])
@pytest.mark.parametrize("edition", ["SELF_HOSTED", "COMMUNITY", "whatever"])
def test_older_releases_take_any_edition(monkeypatch: pytest.MonkeyPatch, release: str, edition: str) -> None:
    check(monkeypatch, "api", rendered(release, "api") | {"EDITION": edition})


def test_daemon_names_what_its_rules_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = rendered("1.17.1", "plugin-daemon")

    with pytest.raises(SystemExit):
        check(monkeypatch, "plugin-daemon", variables | {"DB_SSL_MODE": "verify-full"})
    assert "failed on the 'oneof' tag" in capsys.readouterr().err
    del variables["SERVER_KEY"]
    with pytest.raises(SystemExit):
        check(monkeypatch, "plugin-daemon", variables)
    assert "SERVER_KEY: Field required" in capsys.readouterr().err


def test_what_dify_does_not_know_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    check(monkeypatch, "api", rendered("1.17.1", "api") | {"NOT_A_VARIABLE_OF_DIFY": "1"})


def test_a_release_without_facts_is_not_played(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        check(monkeypatch, "api", rendered("1.17.1", "api") | {"DIFY_STANDIN_RELEASE": "9.9.9"})

    assert "'9.9.9'" in capsys.readouterr().err
