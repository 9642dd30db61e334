"""Refuses an external vector store that Dify could not work with, before anything is created.

`dify:vectorServer` is connected to as the stack does it: with the user, by TLS, with the same roots. In Weaviate,
Qdrant, OpenSearch and Elasticsearch an empty collection is created, with the settings that Dify uses, and removed.
"""

from collections.abc import Sequence

from infra import hints
from infra.guards import vector_http, volumes
from infra.guards.findings import DataView, Refusal
from infra.guards.postgres import Where, connected, not_connected
from infra.guards.servers import roots_file
from infra.settings.stack import Settings
from infra.settings.vector_server import VECTOR_PASSWORD, VectorServer

SETTING = "vectorServer"
EXTENSION = "vector"
# The first one with the index that Dify creates (hnsw).
LEAST_PGVECTOR = (0, 5)
_RIGHTS = """
select pg_is_in_recovery(),
       has_database_privilege(current_user, current_database(), 'CREATE'),
       coalesce(has_schema_privilege(current_user, to_regnamespace('public'), 'CREATE'), false),
       (select extversion from pg_extension where extname = %(extension)s),
       (select default_version from pg_available_extensions where name = %(extension)s),
       exists (
           select from pg_available_extension_versions
           where name = %(extension)s and (trusted or not superuser)
       ) or (select rolsuper from pg_roles where rolname = current_user)
"""


def refusals(settings: Settings, view: DataView) -> list[Refusal]:
    """Return why Dify cannot use the server of `dify:vectorServer`; nothing without one.

    An engine elsewhere may reach a server that this machine does not: then nothing is connected to.
    """
    server = settings.vector_server
    if server is None:
        return []
    left = _vectors_left_behind(settings, server, view)
    if left:
        return [left]
    if not server.known_password.text or not view.local():
        return []
    problem = (
        _pgvector(settings.stack, server) if server.libpq else vector_http.refusal(settings.stack, server)
    )
    return [problem] if problem else []


def _vectors_left_behind(settings: Settings, server: VectorServer, view: DataView) -> Refusal | None:
    """Refuse another store for a stack that has vectors in its own, unless the setting says that this is meant."""
    volume = f"dify-{settings.stack}-vector"
    if server.own_data_moved or volume not in view.volume_labels(volumes.names(settings.stack)):
        return None
    cluster = settings.kubernetes
    run = (
        f"kubectl --context {cluster.context} --namespace {cluster.namespace} exec deployment/api --"
        if cluster
        else f"docker exec dify-{settings.stack}-api"
    )
    return Refusal(
        problem=f"dify:vectorServer.host: {server.host}: the stack has vectors in a store of its own, in volume "
        f"{volume}, and knowledge bases would find nothing",
        fix="say that this is meant, deploy, and let Dify fill the new store from its database (it calls the "
        "embedding models, and may take hours):\n"
        f"  {hints.assign('vectorServer.ownDataMoved', 'true', stack=settings.stack)}\n"
        f"  {hints.kit('up', stack=settings.stack)}\n"
        f"  {run} flask vdb-migrate",
    )


def _pgvector(stack: str, server: VectorServer) -> Refusal | None:
    import psycopg  # noqa: PLC0415  # for stacks with an external pgvector alone

    name = server.database
    try:
        with (
            roots_file(server, wanted=server.verified) as roots,
            connected(server, name, roots) as connection,
        ):
            row = connection.execute(_RIGHTS, {"extension": EXTENSION}).fetchone()
    except psycopg.Error as problem:
        where = Where(stack=stack, setting=SETTING, password=VECTOR_PASSWORD, key="database")
        return not_connected(where, server, name, problem)
    if row is None:
        return Refusal(
            problem=f"dify:vectorServer.database: {name}: the server says nothing about it",
            fix="use another server",
        )
    replica, create, schema, installed, available, admitted = row
    wrong, user = f"dify:vectorServer.database: {name}", server.user
    administrator = f"as an administrator of database {name} at {server.address}"
    rules: Sequence[tuple[bool, str, str]] = (
        (
            replica,
            f"dify:vectorServer.host: {server.host} is a replica, which nothing can be written to",
            "name the primary",
        ),
        (
            not schema,
            f"{wrong}: user {user} cannot create tables in its schema public",
            f'{administrator}: `grant create on schema public to "{user}"`',
        ),
        (
            not installed and not available,
            f"{wrong}: its server does not have the extension {EXTENSION}",
            "install pgvector there (a package of its own), or allow the extension",
        ),
        (
            vector_http.version(installed or available or "") < LEAST_PGVECTOR,
            f"{wrong} has pgvector {installed or available}, without the index that Dify creates",
            f"install pgvector {'.'.join(map(str, LEAST_PGVECTOR))} or newer there: `alter extension vector update`",
        ),
        (
            not installed and not (create and admitted),
            f"{wrong} does not have the extension {EXTENSION}, and user {user} cannot create it",
            f"{administrator}: `create extension {EXTENSION}`",
        ),
    )
    return next((Refusal(problem=problem, fix=fix) for broken, problem, fix in rules if broken), None)
