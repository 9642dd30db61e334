"""`dify:vectorServer`: a vector store outside of the stack, of the kind that `dify:vectorStore` names.

With a host the stack does not run its own store. Milvus, OpenSearch and Elasticsearch are always outside.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infra import hints
from infra.catalogue.data_services import DATA_PROXY, OUTSIDE_VECTOR_STORES
from infra.settings import origins
from infra.settings.external_data import (
    IDENTIFIER,
    TLS_MODES,
    USER,
    Database,
    Server,
    host_problem,
    read_server,
)
from infra.settings.reader import Section
from infra.settings.stack_secrets import SecretReader

VECTOR_PASSWORD = "externalVectorPassword"  # noqa: S105  # the name of a setting
PGVECTOR, WEAVIATE, MILVUS = "pgvector", "weaviate", "milvus"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a kind of vector store has: its usual ports (with TLS and without), a user, databases, TLS as libpq has it.

    `grpc_ports` are those of a second port, for gRPC, with TLS and without.
    """

    ports: tuple[int, int]
    grpc_ports: tuple[int, int] = (0, 0)
    user: bool = False
    database: str = ""
    libpq: bool = False


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        WEAVIATE: Kind(ports=(443, 8080), grpc_ports=(443, 50051)),
        "qdrant": Kind(ports=(6333, 6333)),
        PGVECTOR: Kind(ports=(5432, 5432), user=True, database="dify", libpq=True),
        MILVUS: Kind(ports=(19530, 19530), user=True, database="default"),
        "opensearch": Kind(ports=(9200, 9200), user=True),
        "elasticsearch": Kind(ports=(9200, 9200), user=True),
    }
)


@dataclass(frozen=True, kw_only=True)
class VectorServer(Server):
    """A vector store outside. `kind` is one of KINDS, `tls` one of TLS_MODES; `user` and `database` may be empty.

    The password is a key in Weaviate and Qdrant. gRPC is at `grpc_host`, whose certificate has `grpc_server_name`; its
    port is 0 where the store has no second one. `own_data_moved` allows the server to a stack with vectors of its own.
    """

    kind: str
    database: str
    tls: str
    grpc_host: str
    grpc_port: int
    grpc_server_name: str
    own_data_moved: bool

    @property
    def encrypted(self) -> bool:
        """Whether connections to the server use TLS."""
        return self.tls != "disable"

    @property
    def verified(self) -> bool:
        """Whether the certificate must come from a known authority."""
        return self.tls in {"verify-ca", "verify-full"}

    @property
    def libpq(self) -> bool:
        """Whether clients connect as to PostgreSQL, so that TLS is between them and the server."""
        return KINDS[self.kind].libpq

    @property
    def dialled(self) -> str:
        """The host that services connect to, which the stack's proxy answers to."""
        return self.server_name if self.libpq and self.tls == "verify-full" else DATA_PROXY


def is_outside(top: Section) -> bool:
    """Tell whether the settings name a server, without a word about what else is wrong with it."""
    given = top.raw("vectorServer")
    return isinstance(given, dict) and bool(given.get("host"))


def read_vector_server(
    section: Section, secrets: SecretReader, store: str, database: Database | None
) -> VectorServer | None:
    """Read `dify:vectorServer` for a `store` of `dify:vectorStore`; None without a host."""
    kind = KINDS[store]
    tls = _tls(section, store, kind)
    encrypted = tls != "disable"
    server = read_server(
        section,
        secrets,
        VECTOR_PASSWORD,
        verified=tls in {"verify-ca", "verify-full"},
        named=tls == "verify-full",
        usual_port=kind.ports[not encrypted],
    )
    grpc_host, grpc_port = section.text("grpcHost"), section.integer("grpcPort", 0, origins.MAX_PORT)
    moved = section.boolean("ownDataMoved")
    if server is None:
        if store in OUTSIDE_VECTOR_STORES:
            section.problems.add(
                "vectorStore",
                store,
                "is a store that the kit does not run",
                f"set {section.key('host')} to the server: "
                f"`{hints.assign(section.key('host'), stack=section.problems.stack)}`",
            )
        return None
    _check_grpc(section, kind, grpc_host)
    user, name = _user(section, store, kind), _database(section, store, kind)
    if kind.libpq and tls.startswith("verify") and database is not None and database.tls == "require":
        section.problems.add(
            section.key("tls"),
            tls,
            "would verify dify:database, too, whose tls is require: libpq has one list of authorities for both",
            "set database.tls to verify-ca or verify-full",
        )
    return VectorServer(
        **vars(server),
        kind=store,
        user=user,
        database=name,
        tls=tls,
        grpc_host=grpc_host or server.host,
        grpc_port=grpc_port or kind.grpc_ports[not encrypted],
        grpc_server_name=section.text("serverName") or grpc_host or server.host,
        own_data_moved=moved,
    )


def _tls(section: Section, store: str, kind: Kind) -> str:
    tls = section.choice("tls", TLS_MODES)
    if not kind.libpq and tls in {"verify-ca", "require"}:
        section.problems.add(
            section.key("tls"), tls, f"is for pgvector, and not for {store}", "use verify-full or disable"
        )
        return "verify-full"
    return tls


def _check_grpc(section: Section, kind: Kind, host: str) -> None:
    """Report where gRPC is, for a store without a second port, and a host that it cannot be at."""
    if not any(kind.grpc_ports):
        for key in ("grpcHost", "grpcPort"):
            if section.raw(key) != section.defaults.get(key):
                section.problems.add(
                    section.key(key), section.raw(key), "is for weaviate alone", "remove the setting"
                )
    elif host and (problem := host_problem(host)):
        section.problems.add(
            section.key("grpcHost"), host, problem, "use the host name or the IPv4 address of the server"
        )


def _user(section: Section, store: str, kind: Kind) -> str:
    user = section.text("user")
    if not kind.user and user:
        section.problems.add(
            section.key("user"), user, f"{store} has keys and no users", "remove it; the key is its password"
        )
    if kind.user and not USER.fullmatch(user):
        section.problems.add(
            section.key("user"), user, "is not a user name", "use letters, digits and _ . @ -, such as dify"
        )
    return user


def _database(section: Section, store: str, kind: Kind) -> str:
    name = section.text("database")
    if not kind.database and name:
        section.problems.add(section.key("database"), name, f"{store} has no databases", "remove it")
    if kind.database and name and not IDENTIFIER.fullmatch(name):
        section.problems.add(
            section.key("database"),
            name,
            "is not the name of a database",
            "use letters, digits and _, such as dify",
        )
    return name or kind.database
