"""The environment of the plugin daemon."""

from infra.catalogue import ports
from infra.catalogue.container_paths import DATABASE_CA_FILE
from infra.catalogue.releases import Release
from infra.services.environment.values import (
    API_URL,
    MEGABYTE,
    Environment,
    database,
    flag,
    redis,
)
from infra.settings.stack import Settings

PLUGIN_DATABASE = "dify_plugin"


def _database_tls(settings: Settings) -> Environment:
    """Return how the daemon connects to its database.

    It takes the modes `disable` and `require` alone. With a file of roots its library (pgx) reads `require` as
    `verify-ca`: it verifies the chain of the certificate, and not the name in it.
    """
    server = settings.database
    if server is None or server.tls == "disable":
        return {"DB_SSL_MODE": "disable"}
    return {"DB_SSL_MODE": "require", **({"PGSSLROOTCERT": DATABASE_CA_FILE} if server.verified else {})}


def plugin_daemon(settings: Settings, _release: Release) -> Environment:
    """Return the environment of the plugin daemon."""
    plugins, storage = settings.plugins, settings.storage
    base: Environment = {
        **database(settings, PLUGIN_DATABASE),
        **_database_tls(settings),
        **redis(settings),
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
