"""The environments of the code sandbox, and of the agent's backend and sandbox."""

from infra.catalogue import ports
from infra.catalogue.releases import Release
from infra.services.environment.values import (
    AGENT_BACKEND_URL,
    AGENT_SSRF_PROXY_URL,
    API_URL,
    LOCAL_SANDBOX_URL,
    PLUGIN_DAEMON_URL,
    SSRF_PROXY_URL,
    Environment,
    agent_redis_url,
    as_compose_sets,
    flag,
)
from infra.settings.stack import Settings


def sandbox(settings: Settings, _release: Release) -> Environment:
    """Return the environment of the sandbox of code nodes."""
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


def local_sandbox(settings: Settings, _release: Release) -> Environment:
    """Return the environment of the agent's sandbox."""
    return {
        "SHELLCTL_AUTH_TOKEN": settings.secrets.agent_sandbox_token,
        "SHELLCTL_ENABLE_PATH_ISOLATION": "true",
        "HTTP_PROXY": AGENT_SSRF_PROXY_URL,
        "HTTPS_PROXY": AGENT_SSRF_PROXY_URL,
        "NO_PROXY": "localhost,127.0.0.1",
    }


def agent_backend(settings: Settings, release: Release) -> Environment:
    """Return the environment of the agent's backend."""
    secrets = settings.secrets
    return {
        **as_compose_sets("agent-backend", release),
        "DIFY_AGENT_REDIS_URL": agent_redis_url(settings),
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
