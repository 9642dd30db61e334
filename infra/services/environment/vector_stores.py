"""The environments of the vector stores that read one. PostgreSQL reads files."""

from infra.catalogue.releases import Release
from infra.services.environment.values import Environment
from infra.settings.stack import Settings


def weaviate(settings: Settings, _release: Release) -> Environment:
    """Return the environment of Weaviate."""
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


def qdrant(settings: Settings, _release: Release) -> Environment:
    """Return the environment of Qdrant."""
    return {
        "QDRANT__SERVICE__API_KEY": settings.secrets.vector_store_api_key,
        "QDRANT__TELEMETRY_DISABLED": "true",
    }
