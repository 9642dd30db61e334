"""Refuses an external database that Dify could not work with, before anything is created.

`dify:database` is connected to as the stack's services do it: with the user, by TLS, with the same roots. Nothing is
written.
"""

from collections.abc import Sequence

from infra import hints
from infra.guards import volumes
from infra.guards.findings import DataView, Refusal
from infra.guards.postgres import Where, connected, not_connected
from infra.guards.servers import roots_file
from infra.settings.external_data import DATABASE_PASSWORD, Database
from infra.settings.stack import Settings

# What Dify's own compose folders run.
LEAST_POSTGRES = 15
# Dify's migration and the plugin daemon create it, if it is not there.
EXTENSION = "uuid-ossp"
_DATABASE_RIGHTS = """
select current_setting('server_version_num')::int / 10000,
       pg_is_in_recovery(),
       pg_encoding_to_char(encoding),
       has_database_privilege(current_user, datname, 'CREATE'),
       coalesce(has_schema_privilege(current_user, to_regnamespace('public'), 'CREATE'), false),
       exists (select from pg_extension where extname = %(extension)s),
       exists (select from pg_available_extensions where name = %(extension)s)
from pg_database where datname = current_database()
"""


def refusals(settings: Settings, view: DataView) -> list[Refusal]:
    """Return why Dify cannot use the database of `dify:database`; nothing without one.

    An engine elsewhere may reach a server that this machine does not: then nothing is connected to.
    """
    server = settings.database
    if server is None:
        return []
    left = _data_left_behind(settings, server, view)
    if left:
        return [left]
    if not server.known_password.text or not view.local():
        return []
    names = {"database": server.name, "pluginDatabase": server.plugin_name}
    found = (_database(settings.stack, server, key, name) for key, name in names.items())
    # A server that rejects the user does so for both.
    return list(dict.fromkeys(one for one in found if one is not None))


def _data_left_behind(settings: Settings, server: Database, view: DataView) -> Refusal | None:
    """Refuse a new database for a stack that has data in its own, unless the setting says that this is meant."""
    volume = f"dify-{settings.stack}-postgres"
    if server.own_data_moved or volume not in view.volume_labels(volumes.names(settings.stack)):
        return None
    inside = "PGPASSWORD=$(cat /run/secrets/postgres_password) pg_dump -h 127.0.0.1 -U postgres --no-owner"
    cluster = settings.kubernetes
    run = (
        f"kubectl --context {cluster.context} --namespace {cluster.namespace} exec statefulset/db-postgres -- sh -c"
        if cluster
        else f"docker exec dify-{settings.stack}-db-postgres sh -c"
    )
    dump = f"{run} '{inside}"
    target = f"psql --host {server.host} --port {server.port} --username {server.user}"
    return Refusal(
        problem=f"dify:database.host: {server.host}: the stack has a database of its own, in volume {volume}, and Dify "
        "would no longer have its data",
        fix="stop what writes to it, and move both databases:\n"
        f"  {dump} dify' | {target} {server.name}\n"
        f"  {dump} dify_plugin' | {target} {server.plugin_name}\n"
        "then, or when the data may be left behind:\n"
        f"  {hints.assign('database.ownDataMoved', 'true', stack=settings.stack)}",
    )


def _database(stack: str, server: Database, key: str, name: str) -> Refusal | None:
    import psycopg  # noqa: PLC0415  # for stacks with an external database alone

    try:
        with (
            roots_file(server, wanted=server.verified) as roots,
            connected(server, name, roots) as connection,
        ):
            row = connection.execute(_DATABASE_RIGHTS, {"extension": EXTENSION}).fetchone()
    except psycopg.Error as problem:
        at = Where(stack=stack, setting="database", password=DATABASE_PASSWORD, key=key)
        return not_connected(at, server, name, problem)
    if row is None:
        return Refusal(
            problem=f"dify:database.{key}: {name}: the server does not list it", fix="use another server"
        )
    version, replica, encoding, create, schema, installed, available = row
    where = f"database {name} at {server.address}"
    user, wrong = server.user, f"dify:database.{key}: {name}"
    grant = f'grant create on database {name} to "{user}"'
    rules: Sequence[tuple[bool, str, str]] = (
        (
            version < LEAST_POSTGRES,
            f"dify:database.host: {server.host} is PostgreSQL {version}",
            f"use PostgreSQL {LEAST_POSTGRES} or newer",
        ),
        (
            replica,
            f"dify:database.host: {server.host} is a replica, which nothing can be written to",
            "name the primary",
        ),
        (
            encoding != "UTF8",
            f"{wrong} has the encoding {encoding}",
            f"create it again: `create database {name} owner \"{user}\" encoding 'UTF8' template template0`",
        ),
        (
            not schema,
            f"{wrong}: user {user} cannot create tables in its schema public",
            f'as an administrator of {where}: `grant create on schema public to "{user}"`',
        ),
        (
            not installed and not available,
            f"{wrong}: its server does not have the extension {EXTENSION}",
            "install PostgreSQL's contrib package there, or allow the extension",
        ),
        (
            not installed and not create,
            f"{wrong} does not have the extension {EXTENSION}, and user {user} cannot create it",
            f'as an administrator of {where}: `create extension "{EXTENSION}"`, or `{grant}`',
        ),
    )
    return next((Refusal(problem=problem, fix=fix) for broken, problem, fix in rules if broken), None)
