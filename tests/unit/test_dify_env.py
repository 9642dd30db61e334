"""The environment of Dify's services: what is derived agrees, and formats that break Dify cannot come out."""

import base64
from typing import Any
from urllib.parse import unquote, urlsplit

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import partly_known, vector_stores, without_variables
from infra.catalogue.variables import problems
from infra.services.environment import BUILDERS, environment, redis_url
from infra.settings.reader import snake
from infra.settings.secrets import DATA_SECRETS, SECRET_VARIABLES
from support.configuration import SECRETS, resolved, settings

NEWEST = RELEASES["1.17.1"]
BACKEND = ("api", "api-websocket", "worker", "worker-beat", "migration")
SERVICES = [name for name in BUILDERS if name not in vector_stores()]


def env(
    service: str, plain: dict[str, Any] | None = None, secrets: dict[str, str] | None = None
) -> dict[str, str]:
    """Return the resolved environment of a service."""
    found = settings(plain, secrets)
    return resolved(environment(service, found, RELEASES[found.release]))


@pytest.mark.parametrize("service", SERVICES)
def test_every_value_is_text(service: str) -> None:
    assert all(isinstance(value, str) for value in env(service).values())


@pytest.mark.parametrize("service", SERVICES)
def test_secrets_are_pulumi_secrets_and_come_from_the_setting_that_is_named_for_them(service: str) -> None:
    found = settings()
    variables = environment(service, found, NEWEST)
    values = resolved(variables)

    outputs = {name for name, value in variables.items() if isinstance(value, pulumi.Output)}

    assert outputs <= set(SECRET_VARIABLES)
    for name in outputs:
        assert SECRETS[SECRET_VARIABLES[name]] in unquote(values[name])
    plain = {name: value for name, value in values.items() if name not in outputs}
    assert [
        name for name, value in plain.items() if value and any(secret in value for secret in SECRETS.values())
    ] == []


def test_both_ends_of_every_internal_key_agree() -> None:
    api, sandbox, daemon = env("api"), env("sandbox"), env("plugin-daemon")
    agent, agent_sandbox = env("agent-backend"), env("local-sandbox")

    assert api["CODE_EXECUTION_API_KEY"] == sandbox["API_KEY"]
    assert api["PLUGIN_DAEMON_KEY"] == daemon["SERVER_KEY"] == agent["DIFY_AGENT_PLUGIN_DAEMON_API_KEY"]
    assert (
        api["INNER_API_KEY_FOR_PLUGIN"] == daemon["DIFY_INNER_API_KEY"] == agent["DIFY_AGENT_INNER_API_KEY"]
    )
    assert api["AGENT_BACKEND_API_TOKEN"] == agent["DIFY_AGENT_API_TOKEN"]
    assert agent["DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN"] == agent_sandbox["SHELLCTL_AUTH_TOKEN"]
    key = agent["DIFY_AGENT_SERVER_SECRET_KEY"]
    assert len(base64.urlsafe_b64decode(key + "=")) == 32


def test_all_urls_come_from_one_origin() -> None:
    api, web = (
        env("api", {"publicUrl": "https://dify.example.com"}),
        env("web", {"publicUrl": "https://dify.example.com"}),
    )

    for name in (
        "CONSOLE_API_URL",
        "CONSOLE_WEB_URL",
        "SERVICE_API_URL",
        "APP_WEB_URL",
        "FILES_URL",
        "TRIGGER_URL",
    ):
        assert api[name] == "https://dify.example.com"
    assert api["ENDPOINT_URL_TEMPLATE"] == "https://dify.example.com/e/{hook_id}"
    assert web["NEXT_PUBLIC_SOCKET_URL"] == "wss://dify.example.com"
    assert api["INTERNAL_FILES_URL"] == web["SERVER_CONSOLE_API_URL"] == "http://api:5001"


def test_cors_lists_have_no_spaces_and_come_from_the_edges_own_setting() -> None:
    cors = {
        "console": ["https://a.example", "https://b.example"],
        "api": ["https://c.example"],
        "openapi": ["https://d.example"],
    }

    api = env("api", {"cors": cors})

    assert api["CONSOLE_CORS_ALLOW_ORIGINS"] == "http://localhost:8080,https://a.example,https://b.example"
    assert api["WEB_API_CORS_ALLOW_ORIGINS"] == "http://localhost:8080,https://c.example"
    assert api["OPENAPI_CORS_ALLOW_ORIGINS"] == "https://d.example"


@given(st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable()))
def test_any_password_survives_being_part_of_the_broker_url(password: str) -> None:
    import asyncio  # noqa: PLC0415

    url = asyncio.new_event_loop().run_until_complete(redis_url_of(password))

    parts = urlsplit(url)
    assert unquote(parts.password or "") == password
    assert (parts.hostname, parts.port, parts.path) == ("redis", 6379, "/1")


async def redis_url_of(password: str) -> str:
    return str(await redis_url(password, 1).future())


@pytest.mark.parametrize("service", BACKEND)
@pytest.mark.parametrize("release", RELEASES)
def test_only_the_migration_job_migrates(service: str, release: str) -> None:
    variables = env(service, {"release": release})

    assert variables["MIGRATION_ENABLED"] == ("true" if service == "migration" else "false")
    assert variables["MODE"] == {"worker": "worker", "worker-beat": "beat", "migration": "migration"}.get(
        service, "api"
    )


@pytest.mark.parametrize(
    ("release", "name", "value"),
    [
        ("1.17.1", "DEPLOYMENT_EDITION", "COMMUNITY"),
        ("1.17.0", "DEPLOYMENT_EDITION", "COMMUNITY"),
        ("1.14.2", "EDITION", "SELF_HOSTED"),
        ("1.12.1", "EDITION", "SELF_HOSTED"),
    ],
)
def test_edition_has_the_name_and_the_value_that_the_release_knows(
    release: str, name: str, value: str
) -> None:
    variables = env("api", {"release": release})

    assert variables[name] == value
    assert len({"DEPLOYMENT_EDITION", "EDITION"} & set(variables)) == 1


def test_older_releases_hear_nothing_of_agents_and_openapi() -> None:
    variables = env("api", {"release": "1.12.1"})

    assert not [name for name in variables if name.startswith(("AGENT_", "OPENAPI_E", "OPENAPI_R"))]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("on", [True, False])
def test_schema_is_served_only_where_the_setting_says_so(release: str, on: bool) -> None:
    assert env("api", {"release": release, "apiSchema": on})["SWAGGER_UI_ENABLED"] == (
        "true" if on else "false"
    )


def test_one_upload_limit_for_all() -> None:
    variables = env("api", {"maxUploadMegabytes": 42})

    limits = {
        name: value
        for name, value in variables.items()
        if name.startswith("UPLOAD_") and name.endswith("_LIMIT")
    }
    assert set(limits.values()) == {"42"}
    assert len(limits) == 4


@pytest.mark.parametrize("store", sorted(vector_stores()))
def test_vector_store_is_wired(store: str) -> None:
    variables = env("api", {"images": "registry", "vectorStore": store})

    assert variables["VECTOR_STORE"] == store
    assert [name for name in variables if name.startswith(store.upper())]


def test_s3_storage_feeds_api_and_plugin_daemon() -> None:
    plain = {
        "storage": {"type": "s3", "bucket": "files", "accessKey": "id", "endpoint": "https://s3.example.com"}
    }
    secrets = {"storageSecretKey": "storage-secret"}

    api, daemon = env("api", plain, secrets), env("plugin-daemon", plain, secrets)

    assert (api["STORAGE_TYPE"], api["S3_BUCKET_NAME"], api["S3_SECRET_KEY"]) == (
        "s3",
        "files",
        "storage-secret",
    )
    assert (daemon["PLUGIN_STORAGE_TYPE"], daemon["PLUGIN_STORAGE_OSS_BUCKET"]) == ("aws_s3", "files")
    assert daemon["AWS_SECRET_KEY"] == "storage-secret"


def test_social_login_reaches_dify() -> None:
    plain = {"login": {"social": True, "githubClientId": "gh"}}

    api = env("api", plain, {"githubClientSecret": "gh-secret"})

    assert api["ENABLE_SOCIAL_OAUTH_LOGIN"] == "true"
    assert (api["GITHUB_CLIENT_ID"], api["GITHUB_CLIENT_SECRET"]) == ("gh", "gh-secret")
    assert "GOOGLE_CLIENT_ID" not in api


def test_mail_by_smtp() -> None:
    plain = {
        "mail": {"type": "smtp", "from": "dify@example.com", "server": "mail.example.com", "username": "u"}
    }

    api = env("api", plain, {"mailPassword": "mail-secret"})

    assert (api["SMTP_SERVER"], api["SMTP_PORT"], api["SMTP_PASSWORD"]) == (
        "mail.example.com",
        "465",
        "mail-secret",
    )


def test_air_gapped_stack_calls_nobody() -> None:
    plain = {"checkUpdates": False, "plugins": {"marketplace": False}}

    api, web = env("api", plain), env("web", plain)

    assert (api["CHECK_UPDATE_URL"], web["MARKETPLACE_URL"]) == ("", "")
    # api refuses an empty address of the marketplace, and asks none while this is off.
    assert api["MARKETPLACE_ENABLED"] == "false"


def test_cookies_are_shared_only_between_split_hosts_of_one_domain() -> None:
    one = env("api", {"publicUrl": "https://dify.example.com"})
    split = env(
        "api", {"publicUrl": "https://console.example.com", "urls": {"app": "https://chat.example.com"}}
    )
    strangers = env(
        "api", {"publicUrl": "https://console.example.com", "urls": {"app": "https://chat.example.org"}}
    )

    assert (one["COOKIE_DOMAIN"], split["COOKIE_DOMAIN"], strangers["COOKIE_DOMAIN"]) == (
        "",
        "example.com",
        "",
    )


def test_extra_variables_come_last_and_to_their_service_only() -> None:
    plain = {"extraEnv": {"api": {"LOG_TZ": "Europe/Berlin", "SQLALCHEMY_POOL_SIZE": "60"}}}

    assert (env("api", plain)["LOG_TZ"], env("api", plain)["SQLALCHEMY_POOL_SIZE"]) == ("Europe/Berlin", "60")
    assert "SQLALCHEMY_POOL_SIZE" not in env("worker", plain)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("service", BACKEND)
def test_only_the_scheduler_and_the_worker_delete_by_age(release: str, service: str) -> None:
    days = {"retention": {"workflowRunDays": 90, "messageDays": 365}, "release": release}

    changed = set(env(service, days).items()) ^ set(env(service, {"release": release}).items())

    assert dict(changed) == (
        {
            "WORKFLOW_LOG_CLEANUP_ENABLED": "true",
            "WORKFLOW_LOG_RETENTION_DAYS": "90",
            "ENABLE_CLEAN_MESSAGES": "true",
            "SANDBOX_EXPIRED_RECORDS_RETENTION_DAYS": "365",
        }
        if service.startswith("worker")
        else {}
    )


@pytest.mark.parametrize(
    ("days", "switches"),
    [
        ({}, set()),
        ({"workflowRunDays": 1}, {"WORKFLOW_LOG_CLEANUP_ENABLED"}),
        ({"messageDays": 1}, {"ENABLE_CLEAN_MESSAGES"}),
    ],
)
def test_nothing_is_deleted_by_age_that_was_not_asked_for(days: dict[str, int], switches: set[str]) -> None:
    found = env("worker-beat", {"retention": days})

    names = {"WORKFLOW_LOG_CLEANUP_ENABLED", "ENABLE_CLEAN_MESSAGES"}
    assert {name for name in names if found.get(name) == "true"} == switches


RICH: tuple[dict[str, Any], ...] = (
    {},
    {"images": "registry", "vectorStore": "weaviate"},
    {"images": "registry", "vectorStore": "qdrant"},
    {"storage": {"type": "s3", "bucket": "files", "endpoint": "http://minio:9000", "accessKey": "key"}},
    {"mail": {"type": "smtp", "server": "mail.example.com", "from": "dify@example.com", "tls": True}},
    {"telemetry": {"otlpEndpoint": "http://collector:4318"}},
    {"retention": {"workflowRunDays": 90, "messageDays": 365}},
    {"login": {"githubClientId": "id", "social": True}},
    {"plugins": {"marketplace": False}, "sandboxNetwork": False, "maxUploadMegabytes": 100},
    {"publicUrl": "https://dify.example.com", "cors": {"v1": ["https://app.example.com"]}},
)


@pytest.mark.parametrize("plain", RICH, ids=lambda plain: "+".join(plain) or "defaults")
@pytest.mark.parametrize("release", RELEASES)
def test_every_variable_that_the_kit_sets_is_read_by_the_real_service_and_has_a_valid_value(
    release: str, plain: dict[str, Any]
) -> None:
    found = settings(
        {"release": release, **plain},
        {"storageSecretKey": "s" * 20, "mailPassword": "mail-password", "githubClientSecret": "g" * 20},
    )
    for service in BUILDERS:
        runs = found.dify.has(service) or service in {"migration", found.vector_store}
        if not runs:
            continue
        variables = resolved(environment(service, found, found.dify))
        variables.pop("DIFY_STANDIN_RELEASE", None)
        known = found.dify.variables(service)
        assert problems(known, variables, complete=service not in partly_known()) == {}, service


@pytest.mark.parametrize("release", RELEASES)
def test_what_compose_sets_otherwise_than_the_code_is_set_where_it_matters(release: str) -> None:
    api, web = env("api", {"release": release}), env("web", {"release": release})
    known = RELEASES[release]

    for name in (
        "ANNOTATION_IMPORT_MAX_CONCURRENT",
        "SCARF_NO_ANALYTICS",
        "SWAGGER_UI_ENABLED",
        "REDIS_KEEPALIVE",
    ):
        variable = known.variables("api").get(name)
        assert api.get(name) == (variable.compose if variable else None)
    for name, variable in known.variables("web").items():
        assert variable.compose is None or name in web
    assert api.get("ENABLE_COLLABORATION_MODE") == ("true" if known.has("api-websocket") else None)
    assert web.get("NEXT_PUBLIC_ENABLE_AGENT_V2") == ("true" if known.has("agent-backend") else None)


def test_only_the_stand_in_is_told_which_release_it_plays() -> None:
    assert env("api")["DIFY_STANDIN_RELEASE"] == "1.17.1"
    assert "DIFY_STANDIN_RELEASE" not in env("api", {"images": "registry", "vectorStore": "weaviate"})


def test_every_secret_variable_names_a_setting_that_exists() -> None:
    found = settings()

    named = set(SECRET_VARIABLES.values()) - DATA_SECRETS
    assert all(hasattr(found.secrets, snake(key)) for key in named)
    assert without_variables().isdisjoint(SERVICES)
