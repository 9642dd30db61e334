"""Settings: what is accepted, what is derived, and one clear error for each malformed value."""

import re
from collections.abc import Iterator
from typing import Any

import pulumi
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.catalogue.checks import shown
from infra.catalogue.project import ROOT, declared
from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from infra.catalogue.releases import RELEASES
from infra.settings import stack
from infra.settings.given import SEALED, SECRET_KEYS, Given
from infra.settings.llm_upstreams import LOOPBACK_PROBLEM
from infra.settings.origins import origin_problem
from infra.settings.program import load
from infra.settings.reader import snake
from infra.settings.secrets import OUTBOUND_SECRETS, SECRET_VARIABLES, SHAPES, TLS_SECRETS
from infra.settings.stack import Reading, Settings
from support.certificates import issue
from support.configuration import SECRETS, configure, settings

# (settings, the key that the error names, a part of the fix or reason)
MALFORMED: list[tuple[dict[str, Any], str, str]] = [
    ({"release": "9.9.9"}, "release", "1.17.1"),
    ({"release": ""}, "release", "use one of"),
    ({"images": None}, "images", "dify-kit init unit"),
    ({"images": "docker-hub"}, "images", "registry, mirror, preloaded, local"),
    ({"images": "mirror", "vectorStore": "weaviate"}, "mirror", "without a scheme"),
    (
        {"images": "mirror", "vectorStore": "weaviate", "mirror": "https://r.example"},
        "mirror",
        "without a scheme",
    ),
    ({"mirror": "r.example.com/dify"}, "mirror", "set dify:images to mirror"),
    ({"publicUrl": "dify.example.com"}, "publicUrl", "no scheme"),
    ({"publicUrl": "ftp://dify.example.com"}, "publicUrl", "http nor https"),
    ({"publicUrl": "https://dify.example.com/"}, "publicUrl", "trailing slash"),
    ({"publicUrl": "https://dify.example.com/dify"}, "publicUrl", "path"),
    ({"publicUrl": "https://user@dify.example.com"}, "publicUrl", "user name"),
    ({"publicUrl": "https://dify.example.com:443"}, "publicUrl", "default port"),
    ({"publicUrl": "https://dify.example.com:99999"}, "publicUrl", "port"),
    ({"publicUrl": "https://dify example.com"}, "publicUrl", "white space"),
    ({"publicUrl": "https://Dify.example.com"}, "publicUrl", "lower case"),
    ({"httpPort": 0}, "httpPort", "1 to 65535"),
    ({"httpPort": 65536}, "httpPort", "1 to 65535"),
    ({"httpPort": "http"}, "httpPort", "1 to 65535"),
    ({"httpPort": 80.5}, "httpPort", "1 to 65535"),
    ({"bindAddress": "localhost"}, "bindAddress", "127.0.0.1"),
    ({"bindAddress": "300.1.1.1"}, "bindAddress", "no IP address"),
    ({"bindAddress": "224.0.0.1"}, "bindAddress", "multicast"),
    ({"bindAddress": "ff02::1"}, "bindAddress", "multicast"),
    ({"bindAddress": "255.255.255.255"}, "bindAddress", "reserved"),
    ({"bindAddress": "0.0.0.1"}, "bindAddress", "reserved"),
    ({"bindAddress": "fe80::1"}, "bindAddress", "link-local"),
    ({"bindAddress": "fe80::1%eth0"}, "bindAddress", "no IP address"),
    ({"bindAddress": "[::1]"}, "bindAddress", "no IP address"),
    ({"bindAddress": "\uff11\uff12\uff17.0.0.1"}, "bindAddress", "no IP address"),
    ({"httpPort": "\uff18\uff10\uff18\uff10"}, "httpPort", "1 to 65535"),
    ({"httpPort": "8_080"}, "httpPort", "1 to 65535"),
    ({"serverNames": ["2130706433"]}, "serverNames", "ends in a number"),
    ({"serverNames": ["127.1"]}, "serverNames", "ends in a number"),
    ({"serverNames": ["0x7f.1"]}, "serverNames", "ends in a number"),
    ({"serverNames": ["\uff41.example"]}, "serverNames", "host name"),
    ({"serverNames": ["dify example"]}, "serverNames", "host name"),
    ({"serverNames": ["evil; return 200"]}, "serverNames", "host name"),
    ({"serverNames": "dify.example.com"}, "serverNames", "not a list"),
    ({"urls": {"console": "https://dify.example.com"}}, "urls", "http and https mixed"),
    ({"urls": {"console": "dify.example.com"}}, "urls.console", "no scheme"),
    ({"urls": {"konsole": "http://a.example"}}, "urls.konsole", "did you mean urls.console"),
    ({"extraEnv": {"nginx": {"A": "1"}}}, "extraEnv.nginx", "dify:templatesDir"),
    ({"secretRotations": {"databse": 1}}, "secretRotations.databse", "did you mean secretRotations.database"),
    ({"secretRotations": {"redis": -1}}, "secretRotations.redis", "from 0 to"),
    ({"extraEnv": {"db-postgres": {"A": "1"}}}, "extraEnv.db-postgres", "use one of agent-backend, api"),
    ({"cors": {"v1": ["https://app.example.com/"]}}, "cors.v1", "trailing slash"),
    ({"cors": {"v1": ["https://app.example.com/path"]}}, "cors.v1", "path"),
    ({"cors": {"v1": ["app.example.com"]}}, "cors.v1", "no scheme"),
    ({"cors": {"v1": ["https://*.example.com"]}}, "cors.v1", "wildcards"),
    ({"cors": {"v1": ["null"]}}, "cors.v1", "null"),
    ({"cors": {"v1": ["https://a.example", "https://a.example"]}}, "cors.v1", "listed twice"),
    ({"cors": {"v1": ["*", "https://a.example"]}}, "cors.v1", "list * alone"),
    ({"cors": {"v1": ['https://a.example"; evil']}}, "cors.v1", "white space"),
    ({"cors": {"v1": "https://a.example"}}, "cors.v1", "not a list"),
    ({"cors": {"console": ["*"]}}, "cors.console", "cookies"),
    ({"cors": {"api": ["*"]}}, "cors.api", "cookies"),
    ({"cors": {"v2": []}}, "cors.v2", "did you mean cors.v1"),
    ({"cors": ["https://a.example"]}, "cors", "not an object"),
    ({"rateLimits": 5}, "rateLimits", "not an object"),
    ({"trustedProxies": "10.0.0.0/8"}, "trustedProxies", "not a list"),
    ({"trustedProxies": ["10.0.0.1/8"]}, "trustedProxies", "host bits"),
    ({"trustedProxies": ["proxy.internal"]}, "trustedProxies", "no network"),
    ({"trustedProxies": ["0.0.0.0/0"]}, "trustedProxies", "matches every address"),
    ({"trustedProxies": ["::/0"]}, "trustedProxies", "matches every address"),
    ({"trustedProxies": ["0.0.0.0/1", "128.0.0.0/1"]}, "trustedProxies", "too much of IPv4"),
    ({"trustedProxies": ["::/1", "8000::/1"]}, "trustedProxies", "too much of IPv6"),
    ({"trustedProxies": ["0.0.0.0/1"]}, "trustedProxies", "too much of IPv4"),
    ({"trustedProxies": [f"{n}.0.0.0/8" for n in range(11, 99)]}, "trustedProxies", "too much of IPv4"),
    ({"trustedProxies": ["224.0.0.1"]}, "trustedProxies", "multicast"),
    ({"trustedProxies": ["ff02::1"]}, "trustedProxies", "multicast"),
    ({"trustedProxies": ["::ffff:0:0/96"]}, "trustedProxies", "IPv6 spelling"),
    ({"trustedProxies": ["\uff11\uff10.0.0.1"]}, "trustedProxies", "no network"),
    ({"trustedProxies": ["fe80::1%eth0"]}, "trustedProxies", "no network"),
    ({"consoleAllowFrom": ["0.0.0.0/1", "128.0.0.0/1"]}, "consoleAllowFrom", "too much of IPv4"),
    ({"consoleAllowFrom": ["224.0.0.1"]}, "consoleAllowFrom", "multicast"),
    ({"consoleAllowFrom": ["10.0.0.0/33"]}, "consoleAllowFrom", "no network"),
    ({"consoleAllowFrom": ["10.1.0.0/16; allow all"]}, "consoleAllowFrom", "no network"),
    ({"consoleAllowFrom": ["0.0.0.0/0"]}, "consoleAllowFrom", "matches every address"),
    ({"vectorStore": "chroma"}, "vectorStore", "pgvector, qdrant, weaviate"),
    ({"vectorStore": "milvus"}, "vectorStore", "vectorServer.host"),
    ({"vectorStore": "weaviate"}, "vectorStore", "use pgvector"),
    ({"maxUploadMegabytes": 0}, "maxUploadMegabytes", "1 to 10240"),
    ({"proxyProtocol": True}, "trustedProxies", "the limits of one address"),
    ({"proxyProtocol": "v2", "trustedProxies": ["10.0.0.0/8"]}, "proxyProtocol", "neither true nor false"),
    ({"addressConnections": 7}, "addressConnections", "use 8 or more, or 0 for any number"),
    ({"maxUploadMegabytes": "15M"}, "maxUploadMegabytes", "1 to 10240"),
    ({"apps": ["no-such-app"]}, "apps", "echo-chat"),
    ({"apps": ["../secrets"]}, "apps", "echo-chat"),
    ({"apps": ["no-such-app"]}, "apps", "dify:appsDir"),
    ({"appsDir": "apps"}, "appsDir", "absolute path"),
    ({"appsDir": "/no/such/directory"}, "appsDir", "absolute path"),
    ({"canary": "perhaps"}, "canary", "true or false"),
    ({"canaryKnowledge": "perhaps"}, "canaryKnowledge", "true or false"),
    ({"adminEmail": ""}, "adminEmail", "you@example.com"),
    ({"adminEmail": "admin"}, "adminEmail", "you@example.com"),
    ({"adminName": " "}, "adminName", "name the admin"),
    ({"keepVolumes": "no"}, "keepVolumes", "true or false"),
    ({"protect": "yes"}, "protect", "true or false"),
    ({"protect": True, "keepVolumes": False}, "protect", "set keepVolumes to true"),
    ({"templatesDir": "relative/dir"}, "templatesDir", "absolute path"),
    ({"templatesDir": "/no/such/directory"}, "templatesDir", "absolute path"),
    ({"extraEnv": {"nginxx": {"A": "1"}}}, "extraEnv.nginxx", "no such service"),
    ({"extraEnv": {"api": {"NOT-A-NAME": "1"}}}, "extraEnv.api.NOT-A-NAME", "letters, digits and _"),
    ({"extraEnv": {"api": "A=1"}}, "extraEnv.api", "{NAME: value}"),
    ({"extraEnv": {"api": {"LOG_TZ": "two\nlines"}}}, "extraEnv.api.LOG_TZ", "one line"),
    (
        {"extraEnv": {"agent-backend": {"A": "1"}}, "release": "1.12.1"},
        "extraEnv.agent-backend",
        "no such service",
    ),
    ({"extraEnv": {"api": {"LOG_TS": "UTC"}}}, "extraEnv.api.LOG_TS", "did you mean LOG_TZ?"),
    (
        {"extraEnv": {"api": {"SQLALCHEMY_POOL_SIZE": "many"}}},
        "extraEnv.api.SQLALCHEMY_POOL_SIZE",
        "whole number",
    ),
    (
        {"extraEnv": {"worker": {"DEPLOYMENT_EDITION": "OWN"}}},
        "extraEnv.worker.DEPLOYMENT_EDITION",
        "not one of",
    ),
    (
        {"extraEnv": {"plugin-daemon": {"PPROF_ENABLED": "yes"}}},
        "extraEnv.plugin-daemon.PPROF_ENABLED",
        "neither true nor",
    ),
    ({"weaviateVersion": "1.30.0"}, "weaviateVersion", "1.27.27, 1.28.16"),
    ({"weaviateVersion": "1.39.2"}, "weaviateVersion", "another vector store"),
    ({"extraEnv": {"api": {"SECRET_KEY": "mine"}}}, "extraEnv.api.SECRET_KEY", "dify:secretKey"),
    (
        {"extraEnv": {"worker": {"DB_PASSWORD": "mine"}}},
        "extraEnv.worker.DB_PASSWORD",
        "dify:postgresPassword",
    ),
    ({"resources": {"api": {"memory": 1}}}, "resources.api.memory", "32"),
    ({"resources": {"api": {"cpus": 0}}}, "resources.api.cpus", "0.1"),
    ({"resources": {"api": {"ram": 512}}}, "resources.api.ram", "memory"),
    ({"apiWorkers": 0}, "apiWorkers", "1 to 64"),
    ({"celeryWorkers": -1}, "celeryWorkers", "1 to 64"),
    ({"postgresMaxConnections": 3}, "postgresMaxConnections", "20"),
    ({"logLevel": "verbose"}, "logLevel", "DEBUG, INFO"),
    ({"accessLog": "some"}, "accessLog", "all, errors, off"),
    ({"requestHeaders": ["X-Real-IP"]}, "requestHeaders", "the edge writes this header itself"),
    ({"requestHeaders": ["cf-connecting-ip"]}, "requestHeaders", "would trust it from any client"),
    ({"requestHeaders": ["X_Under"]}, "requestHeaders", "no header name"),
    ({"requestHeaders": ["X-A;"]}, "requestHeaders", "no header name"),
    ({"mail": {"type": "smtp", "from": "a@b.example"}}, "mail.server", "SMTP server"),
    ({"mail": {"type": "smtp", "server": "mail.example.com"}}, "mail.from", "sender"),
    ({"mail": {"type": "pigeon"}}, "mail.type", "use one of nothing, smtp, resend, sendgrid"),
    (
        {"mail": {"type": "resend", "from": "a@b.example"}},
        "mailPassword",
        "dify-kit set mailPassword --stack unit",
    ),
    ({"storage": {"type": "s3"}}, "storage.bucket", "s3 needs it"),
    (
        {"storage": {"type": "s3", "bucket": "b", "accessKey": "k"}},
        "storageSecretKey",
        "dify-kit set storageSecretKey",
    ),
    ({"storage": {"type": "ftp"}}, "storage.type", "fs, s3"),
    ({"login": {"social": True}}, "login.social", "githubClientId"),
    (
        {"login": {"social": True, "githubClientId": "id"}},
        "githubClientSecret",
        "dify-kit set githubClientSecret",
    ),
    ({"login": {"githubClientId": "id"}}, "login.social", "set login.social to true"),
    ({"login": {"emailPassword": False}}, "login", "no user could sign in"),
    ({"openapi": {"enabled": True}, "release": "1.12.1"}, "openapi.enabled", "has no /openapi"),
    ({"limits": {"activeRequests": -1}}, "limits.activeRequests", "0"),
    ({"retention": {"workflowRunDays": -1}}, "retention.workflowRunDays", "0 to 3650"),
    ({"retention": {"messageDays": 3651}}, "retention.messageDays", "0 to 3650"),
    ({"backup": {"to": "backups"}}, "backup.to", "/srv/backups"),
    ({"backup": {"to": "s3://bucket/one"}}, "backup.to", "s3://BUCKET/PREFIX/ with a slash"),
    ({"backup": {"to": "/srv", "at": "24:00"}}, "backup.at", "00:00 to 23:59"),
    # YAML without quotes: 02:00 is the number 120.
    ({"backup": {"at": 120}}, "backup.at", "in quotes"),
    ({"backup": {"keepDaily": -1}}, "backup.keepDaily", "0 to 1000"),
    ({"backup": {"passphraseFile": "~/passphrase"}}, "backup.passphraseFile", "/root/backup-passphrase"),
    ({"backup": {"vectors": "some"}}, "backup.vectors", "true or false"),
    ({"plugins": {"pipMirrorUrl": "mirror.example"}}, "plugins.pipMirrorUrl", "http"),
    ({"telemetry": {"samplingRate": 2}}, "telemetry.samplingRate", "0.0 to 1.0"),
    ({"ssrfAllowPrivate": ["10.0.0.0/99"]}, "ssrfAllowPrivate", "10.1.2.0/24"),
    ({"ssrfAllowPrivate": ["0.0.0.0/0"]}, "ssrfAllowPrivate", "every address"),
    ({"ssrfAllowPrivate": ["::/0"]}, "ssrfAllowPrivate", "every address"),
    ({"ssrfAllowPrivate": ["0.0.0.0/1"]}, "ssrfAllowPrivate", "credentials"),
    ({"ssrfAllowPrivate": ["128.0.0.0/1"]}, "ssrfAllowPrivate", "credentials"),
    ({"ssrfAllowPrivate": ["11.0.0.0/8"]}, "ssrfAllowPrivate", "no private network"),
    ({"ssrfAllowPrivate": ["169.254.169.254"]}, "ssrfAllowPrivate", "credentials"),
    ({"ssrfAllowPrivate": ["fd00::/8"]}, "ssrfAllowPrivate", "credentials"),
    ({"ssrfAllowPrivate": ["100.64.0.0/10"]}, "ssrfAllowPrivate", "credentials"),
    ({"ssrfAllowPrivate": ["127.0.0.1"]}, "ssrfAllowPrivate", "loopback"),
    ({"ssrfAllowPrivate": ["224.0.0.1"]}, "ssrfAllowPrivate", "multicast"),
    ({"ssrfAllowPrivate": ["::ffff:10.0.0.1"]}, "ssrfAllowPrivate", "IPv6 spelling"),
    ({"ssrfAllowPrivate": ["\uff11\uff10.0.0.1"]}, "ssrfAllowPrivate", "neither network nor host"),
    ({"ssrfAllowPrivate": ["plugin-daemon"]}, "ssrfAllowPrivate", "service of the stack"),
    ({"ssrfAllowPrivate": ["localhost"]}, "ssrfAllowPrivate", "service of the stack"),
    ({"ssrfAllowPrivate": ["metadata.google.internal"]}, "ssrfAllowPrivate", "credentials"),
    ({"ssrfDeny": ["0.0.0.0/0"]}, "ssrfDeny", "no address could be reached"),
    ({"ssrfDeny": ["example.com"]}, "ssrfDeny", "is not a network"),
    ({"resources": {"api": {"pids": 1}}}, "resources.api.pids", "64 to"),
    ({"corsOrigins": ["https://a.example"]}, "corsOrigins", "no such setting"),
    ({"vectorstore": "pgvector"}, "vectorstore", "did you mean vectorStore"),
]


def told(plain: dict[str, Any], secrets: dict[str, str] | None = None) -> list[str]:
    """Return the problems that loading reports."""
    configure(plain, secrets)
    with pytest.raises(pulumi.RunError) as failure:
        load(pulumi.Config("dify"), "unit")
    first, *problems = str(failure.value).splitlines()
    assert first == "the settings of stack unit cannot work:"
    return [line.removeprefix("  - ") for line in problems]


def _secret(key: str) -> bool:
    last = key.rpartition(".")[2]
    return last in SHAPES or last in SECRET_VARIABLES


def _given(plain: Any, key: str) -> str | int | float | None:
    """Return the malformed value, when it is a single one under just that key."""
    for part in key.split("."):
        plain = plain.get(part) if isinstance(plain, dict) else None
    return plain if isinstance(plain, str | int | float) and not isinstance(plain, bool) else None


@pytest.mark.parametrize(
    ("plain", "key", "hint"), MALFORMED, ids=[f"{c[1]}-{n}" for n, c in enumerate(MALFORMED)]
)
def test_malformed_setting_gives_one_clear_error(plain: dict[str, Any], key: str, hint: str) -> None:
    problems = told(plain)

    named = [problem for problem in problems if problem.startswith(f"dify:{key}:")]
    assert len(named) == 1, problems
    assert hint in named[0]
    # Key, value (never a secret's, and not of what is not set), reason and fix.
    valueless = _secret(key) or named[0].startswith(f"dify:{key}: not set")
    value = "" if valueless else r"(?P<value>'.*'|\".*\"): "
    parts = re.fullmatch(rf"dify:{re.escape(key)}: {value}(?P<why>.+?); (?P<fix>.+)", named[0])
    assert parts, named[0]
    given = _given(plain, key)
    if given is not None and not valueless:
        # A malformed name is what is wrong, not its value.
        assert parts["value"] in {shown(given), shown(key.rpartition(".")[2])}


SECRET_PROBLEMS = [
    ("secretKey", "short", "has 5 characters"),
    ("adminPassword", "onlyletters", "letter and a digit"),
    ("initPassword", "x" * 31, "has 31 characters"),
    ("postgresPassword", "", "dify-kit set postgresPassword --generate --stack unit"),
    ("redisPassword", "pässword-with-umlaut", "ASCII"),
    ("agentServerSecretKey", "A" * 44, "33 bytes"),
    ("agentServerSecretKey", "A" * 43 + "=", "padded"),
    ("agentServerSecretKey", "A" * 42 + "+", "base64url"),
    ("agentServerSecretKey", "short", "has 5 characters"),
    *[("secretKey", default, "upstream publishes") for default in sorted(PUBLISHED_DEFAULTS)],
]


@pytest.mark.parametrize(("key", "value", "reason"), SECRET_PROBLEMS)
def test_malformed_secret_is_refused_without_being_shown(key: str, value: str, reason: str) -> None:
    problems = told({}, {key: value})

    assert len(problems) == 1
    assert problems[0].startswith(f"dify:{key}:")
    assert reason in problems[0]
    assert not value or value not in problems[0]


def test_secret_in_plain_text_is_refused() -> None:
    configure()
    config = dict(pulumi.runtime.config.CONFIG.get())
    pulumi.runtime.set_all_config(config, [])

    with pytest.raises(pulumi.RunError, match="dify:secretKey: is stored in plain text"):
        load(pulumi.Config("dify"), "unit")


@pytest.mark.parametrize("stack", ["Dev", "1st", "a_b", "x" * 32])
def test_stack_name_that_cannot_name_containers_is_refused(stack: str) -> None:
    configure()

    with pytest.raises(pulumi.RunError, match="stack name"):
        load(pulumi.Config("dify"), stack)


def test_all_problems_are_told_at_once() -> None:
    problems = told({"httpPort": 0, "logLevel": "loud", "adminEmail": "nobody"})

    assert {problem.split(":")[1] for problem in problems} == {"httpPort", "logLevel", "adminEmail"}


def test_every_declared_setting_is_a_field_and_the_other_way_round() -> None:
    fields = set(Settings.__dataclass_fields__) - {"stack", "secrets"}
    plain = {
        snake(key) for key in declared() if key not in {*SHAPES, *TLS_SECRETS, "llmKeys", "modelCredentials"}
    }

    assert plain == fields
    assert set(SHAPES) <= set(declared())


def test_defaults_of_pulumi_yaml_are_the_settings_of_a_new_stack() -> None:
    found = settings()

    assert found.release == declared()["release"]["default"]
    assert found.http_port == declared()["httpPort"]["default"]
    assert found.login.lockout_seconds == declared()["login"]["default"]["lockoutSeconds"]


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_of_the_catalogue_loads(release: str) -> None:
    assert settings({"release": release}).release == release


def test_one_public_origin_gives_every_url() -> None:
    found = settings({"publicUrl": "https://dify.example.com"})

    assert {getattr(found.urls, part) for part in found.urls.__dataclass_fields__} == {
        "https://dify.example.com"
    }
    assert found.server_names == ("dify.example.com",)


def test_local_address_answers_to_every_name_of_this_machine() -> None:
    found = settings({"httpPort": 8123})

    assert found.public_url == "http://localhost:8123"
    assert found.server_names == ("localhost", "127.0.0.1", "[::1]")


def test_split_hosts_are_all_served() -> None:
    found = settings(
        {
            "publicUrl": "https://dify.example.com",
            "urls": {"app": "https://chat.example.com"},
            "serverNames": ["old.example.com"],
        }
    )

    assert set(found.server_names) == {"dify.example.com", "chat.example.com", "old.example.com"}


def test_console_and_app_always_allow_their_own_origin() -> None:
    found = settings({"cors": {"console": ["https://admin.example.com"]}})

    assert found.cors.origins("console") == ("http://localhost:8080", "https://admin.example.com")
    assert found.cors.origins("api") == ("http://localhost:8080",)
    assert found.cors.origins("v1") == ()


def test_object_setting_may_be_given_in_part() -> None:
    found = settings({"login": {"allowRegister": True}})

    assert found.login.allow_register
    assert found.login.access_token_minutes == 60


def test_settings_read_as_text_are_understood() -> None:
    found = settings({"httpPort": "9000", "canary": "false", "cors": '{"v1": ["https://a.example"]}'})

    assert (found.http_port, found.canary, found.cors.origins("v1")) == (9000, False, ("https://a.example",))


@given(st.text(max_size=40))
def test_only_origins_are_taken_for_origins(text: str) -> None:
    if origin_problem(text) is None:
        assert re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?", text)


@given(
    st.sampled_from(["http", "https"]),
    st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{2,6}){1,3}", fullmatch=True),
    st.integers(1, 65535).filter(lambda port: port not in {80, 443}),
)
def test_origins_as_browsers_send_them_are_accepted(scheme: str, host: str, port: int) -> None:
    assert origin_problem(f"{scheme}://{host}") is None
    assert origin_problem(f"{scheme}://{host}:{port}") is None


@pytest.mark.parametrize("key", sorted(SECRETS))
def test_generated_secret_has_its_shape_and_is_new_each_time(key: str) -> None:
    generate = SHAPES[key].generate
    assert generate is not None

    made = {generate() for _ in range(50)}

    assert len(made) == 50
    assert [SHAPES[key].problem(value) for value in made] == [None] * 50


NUMBERS = sorted(key for key, entry in declared().items() if entry.get("type") == "integer")


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    "zero", [0xFF10, 0x0660, 0x0966, 0x1D7CE], ids=["full-width", "arabic", "devanagari", "bold"]
)
def test_no_number_is_read_from_digits_of_other_scripts(key: str, zero: int) -> None:
    good = str(declared()[key]["default"])
    spelled = good.translate({ord("0") + digit: zero + digit for digit in range(10)})

    assert spelled != good
    assert [line for line in told({key: spelled}) if line.startswith(f"dify:{key}:")]


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::", "::1", "*", "10.1.2.3", "2001:db8::7"])  # noqa: S104
def test_bind_address_of_one_family_or_both(address: str) -> None:
    assert settings({"bindAddress": address}).bind_address == address


UPSTREAMS = {
    "metadata": ("http://169.254.169.254/v1", "credentials"),
    "metadata by name": ("https://metadata.google.internal/v1", "credentials"),
    "multicast": ("https://224.0.0.1/v1", "no address of a host"),
    "nobody": ("http://0.0.0.0:8000/v1", LOOPBACK_PROBLEM),
    "itself": ("https://dify.example.com/llm/v1", "the proxy itself"),
    "itself by container": ("http://nginx:8082/llm/v1", "the proxy itself"),
    "itself by another name": ("https://also.example.com/llm/v1", "the proxy itself"),
    "itself in its container": ("http://127.0.0.1:8082/llm/v1", LOOPBACK_PROBLEM),
    "wide digits": ("https://\uff18.8.8.8/v1", "not a host name"),
    "number": ("https://2130706433/v1", "ends in a number"),
}


@pytest.mark.parametrize("case", UPSTREAMS)
def test_upstream_is_another_server(case: str) -> None:
    url, reason = UPSTREAMS[case]
    llm = {"enabled": True, "upstreams": {"custom": {"baseUrl": url}}, "models": {"gpt-4.1": ["custom"]}}
    plain = {
        "publicUrl": "https://dify.example.com",
        "serverNames": ["also.example.com"],
        "llm": llm | {"embeddings": {}},
    }
    configure({**plain, "llmKeys": None}, {"llmKeys": '{"custom": "0123456789abcdef0123"}'})

    with pytest.raises(pulumi.RunError) as problem:
        load(pulumi.Config("dify"), "unit")

    assert "dify:llm.upstreams.custom.baseUrl" in str(problem.value)
    assert reason in str(problem.value)


def test_upstream_beside_the_proxy_is_another_server() -> None:
    llm = {"enabled": True, "upstreams": {"custom": {"baseUrl": "https://dify.example.com:8443/v1"}}}
    llm |= {"models": {"gpt-4.1": ["custom"]}, "embeddings": {}}
    configure(
        {"publicUrl": "https://dify.example.com", "llm": llm, "llmKeys": None, "httpsPort": 443},
        {"llmKeys": '{"custom": "0123456789abcdef0123"}'},
    )

    assert load(pulumi.Config("dify"), "unit").llm is not None


def test_secret_under_an_unknown_key_is_not_shown() -> None:
    [problem] = told({}, {"gatewaySecrets": "do-not-show-this-value"})

    assert "do-not-show" not in problem
    assert "did you mean gatewaySecret" in problem


@pytest.mark.parametrize(
    ("plain", "group"),
    [
        ({"publicUrl": "http://dify.example.com:8080", "cors": {"v1": ["https://app.example.com"]}}, "v1"),
        (
            {
                "publicUrl": "http://10.1.2.3",
                "cors": {"llm": ["http://a.example", "https://app.example.com"]},
            },
            "llm",
        ),
    ],
)
def test_https_pages_that_browsers_keep_from_a_plain_stack_are_reported(
    plain: dict[str, Any], group: str
) -> None:
    reading = read(plain)

    (warning,) = reading.warnings
    assert reading.problems == ()
    assert warning.startswith(
        f"dify:cors.{group}: https://app.example.com: browsers block requests of pages with https "
    )
    assert plain["publicUrl"] in warning
    assert "tls.mode" in warning


@pytest.mark.parametrize(
    "plain",
    [
        {"cors": {"v1": ["https://app.example.com"]}},
        {"publicUrl": "http://127.0.0.1:8080", "cors": {"v1": ["https://app.example.com"]}},
        {"publicUrl": "https://dify.example.com", "cors": {"v1": ["https://app.example.com"]}},
        {"publicUrl": "http://dify.example.com", "cors": {"v1": ["http://app.example.com"]}},
        {"publicUrl": "http://dify.example.com", "cors": {"v1": ["*"]}},
    ],
)
def test_other_pages_are_not_reported(plain: dict[str, Any]) -> None:
    reading = read(plain)

    assert (reading.problems, reading.warnings) == ((), ())


# Every feature that reads a secret of its own.
ALL_ON: dict[str, Any] = {
    "images": "local",
    "vectorStore": "pgvector",
    "adminEmail": "admin@example.com",
    "publicUrl": "https://dify.example.com",
    "llm": {"enabled": True, "engine": "litellm"},
    "modelProviders": {
        "models": [{"provider": "a/b/c", "model": "m", "type": "llm", "secret": "openai"}],
        "proxy": {"enabled": False},
    },
    "oauth": {"enabled": True, "tenants": {"acme": {"app": "echo-chat"}}},
    "oidcGate": {"enabled": True, "issuer": "https://id.example.com", "clientId": "dify"},
    "outbound": {"proxy": "http://proxy.example.com:3128"},
    "database": {"host": "db.example.com"},
    "redis": {"host": "cache.example.com"},
    "vectorServer": {"host": "vectors.example.com", "user": "dify"},
    "mail": {"type": "resend", "from": "dify@example.com"},
    "storage": {"type": "s3", "bucket": "b", "endpoint": "https://s3.example.com", "accessKey": "a"},
    "login": {"social": True, "githubClientId": "g", "googleClientId": "g"},
}
MARK = "zebra-4711-crossing"
BAD_SECRETS: dict[str, Any] = {
    "line break": f"{MARK}\n{MARK}",
    "control character": f"{MARK}\x07",
    "no text": [MARK],
    "an object": {MARK[::-1]: {"part": MARK}},
    "an object of the upstream": {"holysheep": MARK, "openai": MARK},
    "URL": f"https://kit:{MARK}@host.example",
}


@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "plain"])
@pytest.mark.parametrize("form", BAD_SECRETS)
@pytest.mark.parametrize("key", sorted(SECRET_KEYS))
def test_no_error_shows_a_secret(key: str, form: str, encrypted: bool) -> None:
    values: dict[str, Any] = {**ALL_ON, **dict.fromkeys(SECRET_KEYS, SEALED)}
    if key in TLS_SECRETS:
        pair = issue(["dify.example.com"])
        values |= {"tls": {"mode": "selfsigned" if key == "tlsSeed" else "files"}}
        values |= {"tlsCertificate": pair.pem, "tlsKey": pair.key_pem}
    values[key] = BAD_SECRETS[form]
    hidden = frozenset(SECRET_KEYS) if encrypted else frozenset(SECRET_KEYS - {key})

    reading = stack.read(Given(values=values, encrypted=hidden), "unit")

    said = "\n".join((*reading.problems, *reading.warnings))
    assert MARK not in said
    assert re.search(rf"^dify:{key}\b", said, re.MULTILINE) or _fine(key, form), said


def _fine(key: str, form: str) -> bool:
    """Whether the text is a secret that can be used."""
    return (key, form) in {
        (key, "URL") for key in SHAPES if SHAPES[key].problem(BAD_SECRETS["URL"]) is None
    } or (key, form) == ("modelCredentials", "an object of the upstream")


@pytest.mark.parametrize(
    ("plain", "key"),
    [
        ({"adminPasword": MARK}, "adminPasword"),
        ({"mail": {"password": MARK}}, "mail.password"),
        (
            {"modelProviders": {"models": [{"provider": "a/b/c", "api_key": MARK}]}},
            "modelProviders.models[0].api_key",
        ),
        ({"publicUrl": f"https://kit:{MARK}@dify.example.com"}, "publicUrl"),
        ({"publicUrl": f"https://kit:{MARK}/x@dify.example.com"}, "publicUrl"),
        ({"urls": {"console": f"https://kit:{MARK}@dify.example.com"}}, "urls.console"),
        (
            {
                "llm": {
                    "enabled": True,
                    "upstreams": {"up": {"baseUrl": f"https://kit:{MARK}@llm.example/v1"}},
                }
            },
            "llm.upstreams.up.baseUrl",
        ),
    ],
)
def test_secret_in_a_wrong_place_is_not_shown(plain: dict[str, Any], key: str) -> None:
    reading = read(plain)

    assert [line for line in reading.problems if line.startswith(f"dify:{key}: ")], reading.problems
    assert MARK not in "\n".join((*reading.problems, *reading.warnings))


def test_value_of_an_encrypted_setting_is_not_shown() -> None:
    values = {
        "images": "local",
        "vectorStore": "pgvector",
        "adminEmail": "admin@example.com",
        "httpPort": MARK,
    }
    sealed = dict.fromkeys(SECRET_KEYS, SEALED)

    reading = stack.read(
        Given(values={**sealed, **values}, encrypted=frozenset({*sealed, "httpPort"})), "unit"
    )

    assert any(line.startswith("dify:httpPort: not a whole number") for line in reading.problems)
    assert MARK not in reading.message


# --- objects that are given in part --------------------------------------------------------------------------------

# Their keys are names that the operator chooses.
REPLACED = {("llm", "upstreams"), ("llm", "models")}
ENABLED: dict[str, Any] = {
    "llm": {"enabled": True},
    "oauth": {"enabled": True, "tenants": {"acme": {"app": "echo-chat"}}},
    "oidcGate": {"enabled": True, "issuer": "https://id.example.com", "clientId": "dify"},
    "mail": {"type": "smtp", "server": "mail", "from": "dify@example.com"},
}


def objects(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield every object of a default with more than one part, and its path."""
    if isinstance(value, dict) and path not in REPLACED:
        if len(value) > 1:
            yield path, value
        for key, inner in value.items():
            yield from objects(inner, (*path, key))


PARTS = [
    (path, part)
    for key, entry in declared().items()
    for path, found in objects(entry.get("default"), (key,))
    for part in found
]


def read(plain: dict[str, Any]) -> Reading:
    """Read settings as the command line does: their secrets compare equal."""
    sealed = dict.fromkeys(SECRET_KEYS - OUTBOUND_SECRETS, SEALED)
    plain = {"images": "local", "vectorStore": "pgvector", "adminEmail": "admin@example.com", **plain}
    return stack.read(Given.of({**sealed, **plain}, sealed), "unit")


@pytest.mark.parametrize(("path", "part"), PARTS, ids=[".".join((*path, part)) for path, part in PARTS])
def test_a_part_of_an_object_leaves_the_rest_as_it_is(path: tuple[str, ...], part: str) -> None:
    given: Any = declared()[path[0]]["default"]
    for key in path[1:]:
        given = given[key]
    given = {part: given[part]}
    for key in reversed(path[1:]):
        given = {key: given}

    whole, partial = read(ENABLED), read({**ENABLED, path[0]: {**given, **ENABLED.get(path[0], {})}})

    assert whole.problems == partial.problems == ()
    assert whole.settings == partial.settings


def test_upstreams_and_models_are_replaced_as_a_whole() -> None:
    llm = {"enabled": True, "upstreams": {"own": {"baseUrl": "http://llm/v1"}}}

    without = read({"llm": llm})
    replaced = read({"llm": {**llm, "models": {"m": ["own"]}}})

    assert all("holysheep" in line and "llm.models" in line for line in without.problems)
    assert len(without.problems) == 4
    assert replaced.problems == ()
    assert replaced.settings.llm is not None
    assert [one.name for one in replaced.settings.llm.upstreams] == ["own"]
    assert list(replaced.settings.llm.models) == ["m"]


def test_the_documents_say_what_is_replaced() -> None:
    for file in ("docs/reference/settings.md", "Pulumi.yaml"):
        text = " ".join((ROOT / file).read_text(encoding="utf-8").replace("\n#", " ").split())
        start = text.index("Objects may be given in part")
        said = text[start : start + 500]
        assert "replaced as a whole" in said, file
        assert all(".".join(path) in said for path in REPLACED), file


def test_the_project_names_no_types() -> None:
    """Pulumi would report the first wrong value by itself, without the fix."""
    document = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))

    assert [key for key, entry in document["config"].items() if {"type", "items"} & set(entry)] == []
    assert {entry["type"] for entry in declared().values()} == {
        "array", "boolean", "integer", "object", "string",
    }  # fmt: skip
