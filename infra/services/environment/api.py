"""The environment of the processes that run Dify's api image: api, its workers, the WebSocket server, the migration.

One setting feeds every variable that must agree with it: an origin the nine URLs, a key both of its ends.
"""

from infra.catalogue import ports, route_groups
from infra.catalogue.container_paths import DATABASE_CA_FILE
from infra.catalogue.releases import Release
from infra.catalogue.route_groups import OPENAPI
from infra.services.environment.values import (
    AGENT_BACKEND_URL,
    API_URL,
    DATABASE,
    MARKETPLACE_URL,
    MEGABYTE,
    PLUGIN_DAEMON_URL,
    SANDBOX_URL,
    SSRF_PROXY_URL,
    Environment,
    as_compose_sets,
    celery_url,
    cookie_domain,
    database,
    external_redis_url,
    flag,
    redis,
)
from infra.services.environment.vector_clients import vector_store
from infra.settings.stack import Settings

CELERY_TASKS_PER_CHILD = 50
GUNICORN_TIMEOUT = 360
UPDATES_URL = "https://updates.dify.ai"


def _urls(settings: Settings) -> Environment:
    urls = settings.urls
    return {
        "CONSOLE_API_URL": urls.console,
        "CONSOLE_WEB_URL": urls.console,
        "SERVICE_API_URL": urls.service,
        "APP_WEB_URL": urls.app,
        "FILES_URL": urls.files,
        "TRIGGER_URL": urls.trigger,
        "ENDPOINT_URL_TEMPLATE": f"{urls.endpoint}/e/{{hook_id}}",
        "INTERNAL_FILES_URL": API_URL,
    }


def _cors(settings: Settings, release: Release) -> Environment:
    served = {route.group for route in release.routes}
    variables = {
        # Dify splits at commas and strips nothing.
        group.cors_variable: ",".join(settings.cors.origins(group.name))
        for group in route_groups.TABLE
        if group.cors_variable and group.name in served
    }
    return {**variables, **cookie_domain(settings)}


def _storage(settings: Settings) -> Environment:
    storage = settings.storage
    if storage.type == "fs":
        return {"STORAGE_TYPE": "opendal", "OPENDAL_SCHEME": "fs", "OPENDAL_FS_ROOT": "storage"}
    return {
        "STORAGE_TYPE": "s3",
        "S3_ENDPOINT": storage.endpoint,
        "S3_REGION": storage.region,
        "S3_BUCKET_NAME": storage.bucket,
        "S3_ACCESS_KEY": storage.access_key,
        "S3_SECRET_KEY": settings.secrets.storage_secret_key or "",
        "S3_ADDRESS_STYLE": "path" if storage.path_style else "auto",
        "S3_USE_AWS_MANAGED_IAM": "false",
    }


def _mail(settings: Settings) -> Environment:
    mail = settings.mail
    base: Environment = {"MAIL_TYPE": mail.type, "MAIL_DEFAULT_SEND_FROM": mail.sender}
    password = settings.secrets.mail_password or ""
    if mail.type == "smtp":
        return base | {
            "SMTP_SERVER": mail.server,
            "SMTP_PORT": str(mail.port),
            "SMTP_USERNAME": mail.username,
            "SMTP_PASSWORD": password,
            "SMTP_USE_TLS": flag(mail.tls),
            "SMTP_OPPORTUNISTIC_TLS": flag(mail.opportunistic_tls),
        }
    if mail.type:
        return base | {f"{mail.type.upper()}_API_KEY": password}
    return base


def _login(settings: Settings) -> Environment:
    login = settings.login
    secrets = settings.secrets
    providers: Environment = {}
    if login.github_client_id:
        providers |= {
            "GITHUB_CLIENT_ID": login.github_client_id,
            "GITHUB_CLIENT_SECRET": secrets.github_client_secret or "",
        }
    if login.google_client_id:
        providers |= {
            "GOOGLE_CLIENT_ID": login.google_client_id,
            "GOOGLE_CLIENT_SECRET": secrets.google_client_secret or "",
        }
    return {
        "ENABLE_EMAIL_PASSWORD_LOGIN": flag(login.email_password),
        "ENABLE_EMAIL_CODE_LOGIN": flag(login.email_code),
        "ENABLE_SOCIAL_OAUTH_LOGIN": flag(login.social),
        "ALLOW_REGISTER": flag(login.allow_register),
        "ALLOW_CREATE_WORKSPACE": flag(login.allow_create_workspace),
        "ACCESS_TOKEN_EXPIRE_MINUTES": str(login.access_token_minutes),
        "REFRESH_TOKEN_EXPIRE_DAYS": str(login.refresh_token_days),
        "LOGIN_LOCKOUT_DURATION": str(login.lockout_seconds),
        **providers,
    }


def _openapi(settings: Settings, release: Release) -> Environment:
    if not any(route.group == OPENAPI for route in release.routes):
        return {}
    return {
        "OPENAPI_ENABLED": flag(settings.openapi.enabled),
        "ENABLE_OAUTH_BEARER": flag(settings.openapi.oauth_bearer),
        "OPENAPI_RATE_LIMIT_PER_TOKEN": str(settings.openapi.rate_per_minute),
    }


# The default in api's code differs from what every official stack runs with.
_FOLLOWED = (
    "ANNOTATION_IMPORT_MAX_CONCURRENT",
    "CODE_GENERATION_MAX_TOKENS",
    "LOG_DATEFORMAT",
    "PROMPT_GENERATION_MAX_TOKENS",
    "REDIS_KEEPALIVE",
    "SCARF_NO_ANALYTICS",
    "UV_CACHE_DIR",
)


def _collaboration(release: Release) -> Environment:
    """Turn collaboration on where the release runs the service for it."""
    if "ENABLE_COLLABORATION_MODE" not in release.variables("api"):
        return {}
    return {"ENABLE_COLLABORATION_MODE": flag(release.has("api-websocket"))}


def _limits(settings: Settings) -> Environment:
    limits, megabytes = settings.limits, str(settings.max_upload_megabytes)
    return {
        "APP_MAX_ACTIVE_REQUESTS": str(limits.active_requests),
        "APP_MAX_EXECUTION_TIME": str(limits.execution_seconds),
        "WORKFLOW_MAX_EXECUTION_STEPS": str(limits.workflow_steps),
        "WORKFLOW_MAX_EXECUTION_TIME": str(limits.workflow_seconds),
        "UPLOAD_FILE_SIZE_LIMIT": megabytes,
        "UPLOAD_IMAGE_FILE_SIZE_LIMIT": megabytes,
        "UPLOAD_VIDEO_FILE_SIZE_LIMIT": megabytes,
        "UPLOAD_AUDIO_FILE_SIZE_LIMIT": megabytes,
    }


def _plugin_client(settings: Settings) -> Environment:
    plugins = settings.plugins
    return {
        "PLUGIN_DAEMON_URL": PLUGIN_DAEMON_URL,
        "PLUGIN_DAEMON_KEY": settings.secrets.plugin_daemon_key,
        "PLUGIN_DAEMON_TIMEOUT": str(plugins.timeout_seconds),
        "PLUGIN_MAX_PACKAGE_SIZE": str(plugins.max_package_megabytes * MEGABYTE),
        "PLUGIN_REMOTE_INSTALL_HOST": "localhost",
        "PLUGIN_REMOTE_INSTALL_PORT": str(ports.PLUGIN_DAEMON_DEBUG),
        "INNER_API_KEY_FOR_PLUGIN": settings.secrets.plugin_inner_api_key,
        "MARKETPLACE_ENABLED": flag(plugins.marketplace),
        # Also where the marketplace is off: an empty address ends api's start.
        "MARKETPLACE_API_URL": MARKETPLACE_URL,
    }


def _agent_client(settings: Settings, release: Release) -> Environment:
    if not release.has("agent-backend"):
        return {}
    return {
        "AGENT_BACKEND_BASE_URL": AGENT_BACKEND_URL,
        "AGENT_BACKEND_API_TOKEN": settings.secrets.agent_api_token,
    }


def _telemetry(settings: Settings) -> Environment:
    telemetry = settings.telemetry
    if not telemetry.otlp_endpoint:
        return {"ENABLE_OTEL": "false"}
    return {
        "ENABLE_OTEL": "true",
        "OTLP_BASE_ENDPOINT": telemetry.otlp_endpoint,
        "OTEL_SAMPLING_RATE": str(telemetry.sampling_rate),
    }


def _squid_for_all(settings: Settings) -> Environment:
    """Return one squid for all schemes where the environment names a proxy.

    With one for each scheme, Dify's client (httpx with mounts) follows NO_PROXY too: an HTTP node would reach the
    stack's own services and the hosts of `outbound.noProxy` directly, past the lists of squid. With one for all it does
    not.
    """
    if settings.outbound is None or settings.outbound.proxy is None:
        return {}
    return {"SSRF_PROXY_ALL_URL": SSRF_PROXY_URL}


def _database_tls(settings: Settings) -> Environment:
    """Return libpq's parameters for the database, which api puts into its connection URL."""
    server, vectors = settings.database, settings.vector_server
    if server is None:
        # The variables of libpq that an external pgvector needs would be those of the stack's own database, too.
        return {"DB_EXTRAS": "sslmode=disable"} if vectors and vectors.libpq else {}
    roots = f"&sslrootcert={DATABASE_CA_FILE}" if server.verified else ""
    return {"DB_EXTRAS": f"sslmode={server.tls}{roots}"}


def _event_bus(settings: Settings, release: Release) -> Environment:
    """Return the address of the events between api and its workers, which api makes of REDIS_* without the CA."""
    server = settings.redis
    if server is None or not server.tls or "EVENT_BUS_REDIS_URL" not in release.variables("api"):
        return {}
    return {"EVENT_BUS_REDIS_URL": external_redis_url(server, server.database, with_ca=True)}


def _backend(settings: Settings, release: Release) -> Environment:
    """Return what api, its workers and the migration share."""
    return {
        **as_compose_sets("api", release, _FOLLOWED),
        **_collaboration(release),
        **_urls(settings),
        **database(settings, DATABASE),
        **_database_tls(settings),
        **redis(settings),
        **_event_bus(settings, release),
        "CELERY_BROKER_URL": celery_url(settings),
        "CELERY_BACKEND": "redis",
        "BROKER_USE_SSL": flag(settings.redis is not None and settings.redis.tls),
        **_cors(settings, release),
        **_storage(settings),
        **vector_store(settings),
        **_mail(settings),
        **_login(settings),
        **_openapi(settings, release),
        **_limits(settings),
        **_plugin_client(settings),
        **_agent_client(settings, release),
        **_telemetry(settings),
        "SECRET_KEY": settings.secrets.secret_key,
        "INIT_PASSWORD": settings.secrets.init_password,
        "CODE_EXECUTION_ENDPOINT": SANDBOX_URL,
        "CODE_EXECUTION_API_KEY": settings.secrets.sandbox_api_key,
        "SSRF_PROXY_HTTP_URL": SSRF_PROXY_URL,
        "SSRF_PROXY_HTTPS_URL": SSRF_PROXY_URL,
        **_squid_for_all(settings),
        "LOG_LEVEL": settings.log_level,
        "LOG_TZ": "UTC",
        "DEPLOY_ENV": "PRODUCTION",
        "DEPLOYMENT_EDITION": "COMMUNITY",
        # The code's default is true; the edge answers 404 for the paths as well.
        "SWAGGER_UI_ENABLED": flag(settings.api_schema),
        "CHECK_UPDATE_URL": UPDATES_URL if settings.check_updates else "",
        # The migration job migrates once, before any of these starts.
        "MIGRATION_ENABLED": "false",
        # The edge is the proxy whose X-Forwarded-* headers Dify trusts.
        "RESPECT_XFORWARD_HEADERS_ENABLED": "true",
        "DIFY_BIND_ADDRESS": "0.0.0.0",  # noqa: S104  # inside its container
        "DIFY_PORT": str(ports.API),
        "SQLALCHEMY_POOL_PRE_PING": "true",
    }


def _retention(settings: Settings) -> Environment:
    """Return what the scheduler and the worker need for deletion by age: both load a task only where its switch is on.

    The variables for messages are those of the hosted service's free plan; without billing they apply to every message.
    """
    keep = settings.retention
    runs: Environment = {
        "WORKFLOW_LOG_CLEANUP_ENABLED": "true",
        "WORKFLOW_LOG_RETENTION_DAYS": str(keep.workflow_run_days),
    }
    messages: Environment = {
        "ENABLE_CLEAN_MESSAGES": "true",
        "SANDBOX_EXPIRED_RECORDS_RETENTION_DAYS": str(keep.message_days),
    }
    return {**(runs if keep.workflow_run_days else {}), **(messages if keep.message_days else {})}


def api(settings: Settings, release: Release) -> Environment:
    """Return the environment of the API server."""
    return _backend(settings, release) | {
        "MODE": "api",
        "SERVER_WORKER_AMOUNT": str(settings.api_workers),
        "SERVER_WORKER_CLASS": "gevent",
        "SERVER_WORKER_CONNECTIONS": str(settings.api_worker_connections),
        "GUNICORN_TIMEOUT": str(GUNICORN_TIMEOUT),
    }


def api_websocket(settings: Settings, release: Release) -> Environment:
    """Return the environment of the server that shares the edits of an app between its editors."""
    return _backend(settings, release) | {
        "MODE": "api",
        "SERVER_WORKER_AMOUNT": "1",
        "SERVER_WORKER_CLASS": "geventwebsocket.gunicorn.workers.GeventWebSocketWorker",
        "SERVER_WORKER_CONNECTIONS": "1000",
        "GUNICORN_TIMEOUT": str(GUNICORN_TIMEOUT),
    }


def worker(settings: Settings, release: Release) -> Environment:
    """Return the environment of the Celery worker."""
    return _backend(settings, release) | {
        "MODE": "worker",
        "CELERY_WORKER_AMOUNT": str(settings.celery_workers),
        "CELERY_AUTO_SCALE": "false",
        "MAX_TASKS_PER_CHILD": str(CELERY_TASKS_PER_CHILD),
        **_retention(settings),
    }


def worker_beat(settings: Settings, release: Release) -> Environment:
    """Return the environment of the Celery scheduler."""
    return _backend(settings, release) | {"MODE": "beat", **_retention(settings)}


def migration(settings: Settings, release: Release) -> Environment:
    """Return the environment of the job that migrates the database."""
    return _backend(settings, release) | {"MODE": "migration", "MIGRATION_ENABLED": "true"}
