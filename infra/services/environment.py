"""The environment of Dify's services, derived from the settings.

Variable names and their meaning: Dify's docker/docker-compose.yaml and docker/envs of the supported releases.
One setting feeds every variable that has to agree with it: an origin the nine URLs, a key both of its ends.
"""

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote

import pulumi

from infra.catalogue import ports, route_groups
from infra.catalogue.releases import Release
from infra.settings.stack import Settings

Environment = dict[str, pulumi.Input[str]]

API_URL = f"http://api:{ports.API}"
PLUGIN_DAEMON_URL = f"http://plugin_daemon:{ports.PLUGIN_DAEMON}"
SANDBOX_URL = f"http://sandbox:{ports.SANDBOX}"
AGENT_BACKEND_URL = f"http://agent_backend:{ports.AGENT_BACKEND}"
LOCAL_SANDBOX_URL = f"http://local_sandbox:{ports.LOCAL_SANDBOX}"
SSRF_PROXY_URL = f"http://ssrf_proxy:{ports.SQUID}"
AGENT_SSRF_PROXY_URL = f"http://agent_ssrf_proxy:{ports.SQUID}"

DATABASE = "dify"
PLUGIN_DATABASE = "dify_plugin"
CELERY_REDIS_DB = 1
AGENT_REDIS_DB = 2
MEGABYTE = 1024 * 1024
# Dify allows larger videos and sounds than other files; the edge's limit is the ceiling of all.
CELERY_TASKS_PER_CHILD = 50
GUNICORN_TIMEOUT = 360
MARKETPLACE_URL = "https://marketplace.dify.ai"
UPDATES_URL = "https://updates.dify.ai"


def environment(service: str, settings: Settings, release: Release) -> Environment:
    """Return the variables of a service; `dify:extraEnv` comes last and wins.

    `service` is one of Dify's services, the migration job or a vector store.
    """
    base = _BUILDERS[service](settings, release)
    if settings.images == "local" and service != "pgvector":
        # Baked into the official images, so the stand-in has to be told.
        base["DIFY_STANDIN_RELEASE"] = release.version
    return {**_as_named_by(release, base), **settings.extra_env.get(service, {})}


def _as_named_by(release: Release, base: Environment) -> Environment:
    """Return an environment with the names, and their values, that a release knows."""
    named: Environment = {}
    for name, value in base.items():
        renamed = release.renamed.get(name)
        if renamed is None:
            named[name] = value
        else:
            named[renamed.name] = renamed.values.get(value, value) if isinstance(value, str) else value
    return named


def flag(value: bool) -> str:
    """Spell a boolean as Dify reads it."""
    return "true" if value else "false"


def redis_url(password: pulumi.Input[str], database: int, host: str = "redis") -> pulumi.Output[str]:
    """Return a Redis URL whose password survives being part of a URL."""
    return pulumi.Output.from_input(password).apply(
        lambda plain: f"redis://:{quote(plain, safe='')}@{host}:{ports.REDIS}/{database}"
    )


def socket_url(origin: str) -> str:
    """Return the WebSocket address of an origin."""
    return origin.replace("http", "ws", 1)


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


def _database(settings: Settings, database: str) -> Environment:
    return {
        "DB_TYPE": "postgresql",
        "DB_USERNAME": "postgres",
        "DB_PASSWORD": settings.secrets.postgres_password,
        "DB_HOST": "db_postgres",
        "DB_PORT": str(ports.POSTGRES),
        "DB_DATABASE": database,
    }


def _redis(settings: Settings) -> Environment:
    return {
        "REDIS_HOST": "redis",
        "REDIS_PORT": str(ports.REDIS),
        "REDIS_PASSWORD": settings.secrets.redis_password,
        "REDIS_USE_SSL": "false",
        "REDIS_DB": "0",
    }


def _cors(settings: Settings) -> Environment:
    # Dify splits at commas and strips nothing.
    return {
        **{
            group.cors_variable: ",".join(settings.cors.origins(group.name))
            for group in route_groups.TABLE
            if group.cors_variable
        },
        **_cookie_domain(settings),
    }


def _cookie_domain(settings: Settings) -> Environment:
    """Share cookies between split hosts of one domain; a single host needs nothing."""
    hosts = {url.split("://", 1)[1].split(":")[0] for url in (settings.urls.console, settings.urls.app)}
    parents = {host.partition(".")[2] for host in hosts}
    if len(hosts) == 1 or len(parents) != 1 or "." not in (parent := parents.pop()):
        return {"COOKIE_DOMAIN": ""}
    return {"COOKIE_DOMAIN": parent}


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


def _vector_store(settings: Settings) -> Environment:
    key = settings.secrets.vector_store_api_key
    stores: Mapping[str, Environment] = {
        "weaviate": {
            "WEAVIATE_ENDPOINT": f"http://weaviate:{ports.WEAVIATE}",
            "WEAVIATE_GRPC_ENDPOINT": f"grpc://weaviate:{ports.WEAVIATE_GRPC}",
            "WEAVIATE_API_KEY": key,
        },
        "qdrant": {"QDRANT_URL": f"http://qdrant:{ports.QDRANT}", "QDRANT_API_KEY": key},
        "pgvector": {
            "PGVECTOR_HOST": "pgvector",
            "PGVECTOR_PORT": str(ports.POSTGRES),
            "PGVECTOR_USER": "postgres",
            "PGVECTOR_PASSWORD": settings.secrets.postgres_password,
            "PGVECTOR_DATABASE": DATABASE,
        },
    }
    return {"VECTOR_STORE": settings.vector_store, **stores[settings.vector_store]}


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
    if not any(route.group == "openapi" for route in release.routes):
        return {}
    return {
        "OPENAPI_CORS_ALLOW_ORIGINS": ",".join(settings.cors.origins("openapi")),
        "OPENAPI_ENABLED": flag(settings.openapi.enabled),
        "ENABLE_OAUTH_BEARER": flag(settings.openapi.oauth_bearer),
        "OPENAPI_RATE_LIMIT_PER_TOKEN": str(settings.openapi.rate_per_minute),
    }


# What api's code takes by itself is another value than the one that every official stack runs with.
_FOLLOWED = (
    "ANNOTATION_IMPORT_MAX_CONCURRENT",
    "CODE_GENERATION_MAX_TOKENS",
    "LOG_DATEFORMAT",
    "PROMPT_GENERATION_MAX_TOKENS",
    "REDIS_KEEPALIVE",
    "SCARF_NO_ANALYTICS",
    "UV_CACHE_DIR",
)


def _as_compose_sets(service: str, release: Release, names: Iterable[str] | None = None) -> Environment:
    """Return what the official compose folder of the release sets, of `names` or of all that has no default in code."""
    known = release.variables(service)
    if names is None:
        names = [name for name, variable in known.items() if variable.default is None]
    found = {name: known[name].compose for name in names if name in known}
    return {name: value for name, value in found.items() if value is not None}


def _collaboration(release: Release) -> Environment:
    """Let editors of an app see each other, where the release runs the service for it."""
    if "ENABLE_COLLABORATION_MODE" not in release.variables("api"):
        return {}
    return {"ENABLE_COLLABORATION_MODE": flag(release.has("api_websocket"))}


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
        # An address even where nothing asks it: an empty one ends api's start.
        "MARKETPLACE_API_URL": MARKETPLACE_URL,
    }


def _agent_client(settings: Settings, release: Release) -> Environment:
    if not release.has("agent_backend"):
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


def _backend(settings: Settings, release: Release) -> Environment:
    """Return what api, its workers and the migration share."""
    return {
        **_as_compose_sets("api", release, _FOLLOWED),
        **_collaboration(release),
        **_urls(settings),
        **_database(settings, DATABASE),
        **_redis(settings),
        "CELERY_BROKER_URL": redis_url(settings.secrets.redis_password, CELERY_REDIS_DB),
        "CELERY_BACKEND": "redis",
        "BROKER_USE_SSL": "false",
        **_cors(settings),
        **_storage(settings),
        **_vector_store(settings),
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
        "LOG_LEVEL": settings.log_level,
        "LOG_TZ": "UTC",
        "DEPLOY_ENV": "PRODUCTION",
        "DEPLOYMENT_EDITION": "COMMUNITY",
        # The code's default is true; the edge answers 404 for the paths as well.
        "SWAGGER_UI_ENABLED": flag(settings.api_schema),
        "CHECK_UPDATE_URL": UPDATES_URL if settings.check_updates else "",
        # The migration job does it, once, before any of these starts.
        "MIGRATION_ENABLED": "false",
        # The edge is the proxy whose X-Forwarded-* Dify may believe.
        "RESPECT_XFORWARD_HEADERS_ENABLED": "true",
        "DIFY_BIND_ADDRESS": "0.0.0.0",  # noqa: S104  # inside its container
        "DIFY_PORT": str(ports.API),
        "SQLALCHEMY_POOL_PRE_PING": "true",
    }


def _api(settings: Settings, release: Release) -> Environment:
    return _backend(settings, release) | {
        "MODE": "api",
        "SERVER_WORKER_AMOUNT": str(settings.api_workers),
        "SERVER_WORKER_CLASS": "gevent",
        "SERVER_WORKER_CONNECTIONS": str(settings.api_worker_connections),
        "GUNICORN_TIMEOUT": str(GUNICORN_TIMEOUT),
    }


def _api_websocket(settings: Settings, release: Release) -> Environment:
    return _backend(settings, release) | {
        "MODE": "api",
        "SERVER_WORKER_AMOUNT": "1",
        "SERVER_WORKER_CLASS": "geventwebsocket.gunicorn.workers.GeventWebSocketWorker",
        "SERVER_WORKER_CONNECTIONS": "1000",
        "GUNICORN_TIMEOUT": str(GUNICORN_TIMEOUT),
    }


def _worker(settings: Settings, release: Release) -> Environment:
    return _backend(settings, release) | {
        "MODE": "worker",
        "CELERY_WORKER_AMOUNT": str(settings.celery_workers),
        "CELERY_AUTO_SCALE": "false",
        "MAX_TASKS_PER_CHILD": str(CELERY_TASKS_PER_CHILD),
    }


def _worker_beat(settings: Settings, release: Release) -> Environment:
    return _backend(settings, release) | {"MODE": "beat"}


def _migration(settings: Settings, release: Release) -> Environment:
    return _backend(settings, release) | {"MODE": "migration", "MIGRATION_ENABLED": "true"}


def _web(settings: Settings, release: Release) -> Environment:
    known = release.variables("web")
    base: Environment = {
        **_as_compose_sets("web", release),
        "CONSOLE_API_URL": settings.urls.console,
        "APP_API_URL": settings.urls.app,
        "NEXT_PUBLIC_COOKIE_DOMAIN": "1" if _cookie_domain(settings)["COOKIE_DOMAIN"] else "",
        "NEXT_TELEMETRY_DISABLED": "1",
        "MARKETPLACE_API_URL": MARKETPLACE_URL if settings.plugins.marketplace else "",
        "MARKETPLACE_URL": MARKETPLACE_URL if settings.plugins.marketplace else "",
    }
    if release.has("api_websocket"):
        base["NEXT_PUBLIC_SOCKET_URL"] = socket_url(settings.urls.console)
    if "SERVER_CONSOLE_API_URL" in known:
        base["SERVER_CONSOLE_API_URL"] = API_URL
    if "MARKETPLACE_ENABLED" in known:
        base["MARKETPLACE_ENABLED"] = flag(settings.plugins.marketplace)
    if "NEXT_PUBLIC_ENABLE_AGENT_V2" in known:
        # Without it the agent services run, and no page leads to them.
        base["NEXT_PUBLIC_ENABLE_AGENT_V2"] = flag(release.has("agent_backend"))
    return base


def _plugin_daemon(settings: Settings, _release: Release) -> Environment:
    plugins, storage = settings.plugins, settings.storage
    base: Environment = {
        **_database(settings, PLUGIN_DATABASE),
        "DB_SSL_MODE": "disable",
        **_redis(settings),
        "SERVER_PORT": str(ports.PLUGIN_DAEMON),
        "SERVER_KEY": settings.secrets.plugin_daemon_key,
        "DIFY_INNER_API_URL": API_URL,
        "DIFY_INNER_API_KEY": settings.secrets.plugin_inner_api_key,
        "MAX_PLUGIN_PACKAGE_SIZE": str(plugins.max_package_megabytes * MEGABYTE),
        "PPROF_ENABLED": "false",
        "PLUGIN_REMOTE_INSTALLING_HOST": "0.0.0.0",  # noqa: S104  # inside its container, not published
        "PLUGIN_REMOTE_INSTALLING_PORT": str(ports.PLUGIN_DAEMON_DEBUG),
        "PLUGIN_WORKING_PATH": "/app/storage/cwd",
        "FORCE_VERIFYING_SIGNATURE": flag(plugins.verify_signature),
        "PYTHON_ENV_INIT_TIMEOUT": "120",
        "PLUGIN_MAX_EXECUTION_TIMEOUT": str(plugins.timeout_seconds),
        "PIP_MIRROR_URL": plugins.pip_mirror_url,
        "PLUGIN_STORAGE_TYPE": "local",
        "PLUGIN_STORAGE_LOCAL_ROOT": "/app/storage",
        "PLUGIN_INSTALLED_PATH": "plugin",
        "PLUGIN_PACKAGE_CACHE_PATH": "plugin_packages",
        "PLUGIN_MEDIA_CACHE_PATH": "assets",
    }
    if storage.type == "s3":
        base |= {
            "PLUGIN_STORAGE_TYPE": "aws_s3",
            "PLUGIN_STORAGE_OSS_BUCKET": storage.bucket,
            "S3_USE_AWS": flag(not storage.endpoint),
            "S3_ENDPOINT": storage.endpoint,
            "S3_USE_PATH_STYLE": flag(storage.path_style),
            "AWS_ACCESS_KEY": storage.access_key,
            "AWS_SECRET_KEY": settings.secrets.storage_secret_key or "",
            "AWS_REGION": storage.region,
        }
    return base


def _sandbox(settings: Settings, _release: Release) -> Environment:
    return {
        "API_KEY": settings.secrets.sandbox_api_key,
        "GIN_MODE": "release",
        "WORKER_TIMEOUT": "15",
        "ENABLE_NETWORK": flag(settings.sandbox_network),
        "HTTP_PROXY": SSRF_PROXY_URL,
        "HTTPS_PROXY": SSRF_PROXY_URL,
        "SANDBOX_PORT": str(ports.SANDBOX),
        "PIP_MIRROR_URL": settings.plugins.pip_mirror_url,
    }


def _local_sandbox(settings: Settings, _release: Release) -> Environment:
    return {
        "SHELLCTL_AUTH_TOKEN": settings.secrets.agent_sandbox_token,
        "SHELLCTL_ENABLE_PATH_ISOLATION": "true",
        "HTTP_PROXY": AGENT_SSRF_PROXY_URL,
        "HTTPS_PROXY": AGENT_SSRF_PROXY_URL,
        "NO_PROXY": "localhost,127.0.0.1",
    }


def _agent_backend(settings: Settings, release: Release) -> Environment:
    secrets = settings.secrets
    return {
        **_as_compose_sets("agent_backend", release),
        "DIFY_AGENT_REDIS_URL": redis_url(secrets.redis_password, AGENT_REDIS_DB),
        "DIFY_AGENT_PLUGIN_DAEMON_URL": PLUGIN_DAEMON_URL,
        "DIFY_AGENT_PLUGIN_DAEMON_API_KEY": secrets.plugin_daemon_key,
        "DIFY_AGENT_INNER_API_URL": API_URL,
        "DIFY_AGENT_INNER_API_KEY": secrets.plugin_inner_api_key,
        "DIFY_AGENT_RUNTIME_BACKEND": "local",
        "DIFY_AGENT_LOCAL_SANDBOX_ENDPOINT": LOCAL_SANDBOX_URL,
        "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN": secrets.agent_sandbox_token,
        "DIFY_AGENT_STUB_API_BASE_URL": f"{AGENT_BACKEND_URL}/agent-stub",
        "DIFY_AGENT_SANDBOX_FILES_BASE_URL": API_URL,
        "DIFY_AGENT_SERVER_SECRET_KEY": secrets.agent_server_secret_key,
        "DIFY_AGENT_API_TOKEN": secrets.agent_api_token,
    }


def _weaviate(settings: Settings, _release: Release) -> Environment:
    user = "dify"
    return {
        "PERSISTENCE_DATA_PATH": "/var/lib/weaviate",
        "QUERY_DEFAULTS_LIMIT": "25",
        "DEFAULT_VECTORIZER_MODULE": "none",
        "CLUSTER_HOSTNAME": "node1",
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
        "AUTHENTICATION_APIKEY_ENABLED": "true",
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": settings.secrets.vector_store_api_key,
        "AUTHENTICATION_APIKEY_USERS": user,
        "AUTHORIZATION_ADMINLIST_ENABLED": "true",
        "AUTHORIZATION_ADMINLIST_USERS": user,
        "DISABLE_TELEMETRY": "true",
    }


def _qdrant(settings: Settings, _release: Release) -> Environment:
    return {
        "QDRANT__SERVICE__API_KEY": settings.secrets.vector_store_api_key,
        "QDRANT__TELEMETRY_DISABLED": "true",
    }


_BUILDERS: Mapping[str, Callable[[Settings, Release], Environment]] = {
    "api": _api,
    "api_websocket": _api_websocket,
    "worker": _worker,
    "worker_beat": _worker_beat,
    "migration": _migration,
    "web": _web,
    "plugin_daemon": _plugin_daemon,
    "sandbox": _sandbox,
    "local_sandbox": _local_sandbox,
    "agent_backend": _agent_backend,
    "weaviate": _weaviate,
    "qdrant": _qdrant,
}
