"""The environment of the web frontend."""

from infra.catalogue.releases import Release
from infra.services.environment.values import (
    API_URL,
    MARKETPLACE_URL,
    Environment,
    as_compose_sets,
    cookie_domain,
    flag,
)
from infra.settings.stack import Settings


def web(settings: Settings, release: Release) -> Environment:
    """Return the environment of the web frontend."""
    known = release.variables("web")
    base: Environment = {
        **as_compose_sets("web", release),
        "CONSOLE_API_URL": settings.urls.console,
        "APP_API_URL": settings.urls.app,
        "NEXT_PUBLIC_COOKIE_DOMAIN": "1" if cookie_domain(settings)["COOKIE_DOMAIN"] else "",
        "NEXT_TELEMETRY_DISABLED": "1",
        "MARKETPLACE_API_URL": MARKETPLACE_URL if settings.plugins.marketplace else "",
        "MARKETPLACE_URL": MARKETPLACE_URL if settings.plugins.marketplace else "",
    }
    if release.has("api-websocket"):
        base["NEXT_PUBLIC_SOCKET_URL"] = settings.urls.console.replace("http", "ws", 1)
    if "SERVER_CONSOLE_API_URL" in known:
        base["SERVER_CONSOLE_API_URL"] = API_URL
    if "MARKETPLACE_ENABLED" in known:
        base["MARKETPLACE_ENABLED"] = flag(settings.plugins.marketplace)
    if "NEXT_PUBLIC_ENABLE_AGENT_V2" in known:
        # Without it the agent services run, and no page leads to them.
        base["NEXT_PUBLIC_ENABLE_AGENT_V2"] = flag(release.has("agent-backend"))
    return base
