"""How the processes of Dify's api image reach the vector store: the stack's own, or `dify:vectorServer`.

An external store is reached at the stack's proxy. TLS is between the proxy and the server, because not every client of
Dify takes a CA (Weaviate's does not); only for pgvector TLS is between client and server, as for PostgreSQL.
"""

from collections.abc import Mapping

from infra.catalogue import ports
from infra.catalogue.container_paths import VECTOR_CA_FILE
from infra.services.environment.values import DATABASE, Environment
from infra.settings.stack import Settings
from infra.settings.vector_server import VectorServer


def vector_store(settings: Settings) -> Environment:
    """Return the kind of store, and how it is reached."""
    server = settings.vector_server
    reached = _outside(server) if server else _own(settings)
    return {"VECTOR_STORE": settings.vector_store, **reached}


def _own(settings: Settings) -> Environment:
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
    return stores[settings.vector_store]


def _outside(server: VectorServer) -> Environment:
    host, port, password = server.dialled, str(ports.VECTOR_SERVER), server.password
    url = f"http://{host}:{port}"
    stores: Mapping[str, Environment] = {
        "weaviate": {
            "WEAVIATE_ENDPOINT": url,
            "WEAVIATE_GRPC_ENDPOINT": f"grpc://{host}:{ports.VECTOR_SERVER_GRPC}",
            "WEAVIATE_API_KEY": password,
        },
        "qdrant": {"QDRANT_URL": url, "QDRANT_API_KEY": password},
        "pgvector": {
            "PGVECTOR_HOST": host,
            "PGVECTOR_PORT": port,
            "PGVECTOR_USER": server.user,
            "PGVECTOR_PASSWORD": password,
            "PGVECTOR_DATABASE": server.database,
            # Dify's client passes none of them; libpq reads these where a connection names no others.
            "PGSSLMODE": server.tls,
            **({"PGSSLROOTCERT": VECTOR_CA_FILE} if server.verified else {}),
        },
        "milvus": {
            "MILVUS_URI": url,
            "MILVUS_USER": server.user,
            "MILVUS_PASSWORD": password,
            "MILVUS_DATABASE": server.database,
        },
        "opensearch": {
            "OPENSEARCH_HOST": host,
            "OPENSEARCH_PORT": port,
            "OPENSEARCH_SECURE": "false",
            "OPENSEARCH_VERIFY_CERTS": "false",
            "OPENSEARCH_AUTH_METHOD": "basic",
            "OPENSEARCH_USER": server.user,
            "OPENSEARCH_PASSWORD": password,
        },
        "elasticsearch": {
            "ELASTICSEARCH_HOST": f"http://{host}",
            "ELASTICSEARCH_PORT": port,
            "ELASTICSEARCH_USERNAME": server.user,
            "ELASTICSEARCH_PASSWORD": password,
            "ELASTICSEARCH_USE_CLOUD": "false",
        },
    }
    return stores[server.kind]
