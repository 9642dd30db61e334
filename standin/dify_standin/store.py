"""PostgreSQL and Redis: connections, and the schema with its revisions."""

import atexit
import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl

import psycopg
import redis
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from dify_standin import model_schema
from dify_standin.config import flag, integer, release, text

Row = dict[str, Any]

# Schema revision of each release, in the order of their migrations.
REVISIONS = {"1.12.1": "r1121", "1.14.2": "r1142", "1.17.0": "r1170", "1.17.1": "r1171"}

SCHEMA = """
create table if not exists setups (version text primary key, setup_at timestamptz not null default now());
create table if not exists accounts (
  id uuid primary key default gen_random_uuid(), email text unique not null, name text not null,
  password text not null, created_at timestamptz not null default now());
create table if not exists tenants (id uuid primary key default gen_random_uuid(), name text not null);
create table if not exists apps (
  id uuid primary key default gen_random_uuid(), name text not null, description text not null default '',
  mode text not null, dsl text not null, published text, enable_api boolean not null default true,
  max_active_requests int not null default 0, created_at timestamptz not null default now(),
  updated_at timestamptz not null default now());
create table if not exists api_tokens (
  id uuid primary key default gen_random_uuid(), app_id uuid not null references apps on delete cascade,
  type text not null default 'app', token text unique not null, last_used_at timestamptz,
  created_at timestamptz not null default now());
create table if not exists end_users (
  id uuid primary key default gen_random_uuid(), app_id uuid not null references apps on delete cascade,
  session_id text not null, unique (app_id, session_id));
create table if not exists conversations (
  id uuid primary key default gen_random_uuid(), app_id uuid not null references apps on delete cascade,
  end_user_id uuid not null references end_users on delete cascade, name text not null, inputs jsonb not null,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now());
create table if not exists messages (
  id uuid primary key default gen_random_uuid(),
  conversation_id uuid not null references conversations on delete cascade,
  query text not null, answer text not null default '', inputs jsonb not null, status text not null default 'running',
  error text, rating text, created_at timestamptz not null default now());
create table if not exists upload_files (
  id uuid primary key default gen_random_uuid(), name text not null, size bigint not null, extension text not null,
  mime_type text not null, key text not null, created_by uuid, created_at timestamptz not null default now());
alter table api_tokens alter column app_id drop not null;
create table if not exists datasets (
  id uuid primary key default gen_random_uuid(), name text unique not null, description text not null default '',
  indexing_technique text, permission text not null default 'only_me',
  created_at timestamptz not null default now());
create table if not exists documents (
  id uuid primary key default gen_random_uuid(), dataset_id uuid not null references datasets on delete cascade,
  name text not null, batch text not null, key text not null, indexing_status text not null default 'waiting',
  error text, created_at timestamptz not null default now(), completed_at timestamptz);
create table if not exists segments (
  id uuid primary key default gen_random_uuid(), document_id uuid not null references documents on delete cascade,
  position int not null, content text not null, keywords text[] not null);
alter table datasets add column if not exists embedding_model text;
alter table datasets add column if not exists embedding_model_provider text;
alter table segments add column if not exists embedding jsonb;
alter table documents add column if not exists size int not null default 0;
"""

_pool: ConnectionPool[psycopg.Connection[Row]] | None = None
_pool_lock = threading.Lock()


class MigrationError(Exception):
    """The database cannot be brought to this release's schema."""


def database_parameters(database: str | None = None) -> dict[str, Any]:
    """Return psycopg's connection parameters from Dify's variables.

    api puts DB_EXTRAS into its connection URL; the plugin daemon has DB_SSL_MODE.
    """
    mode = {"sslmode": text("DB_SSL_MODE")} if text("DB_SSL_MODE") else {}
    return {
        **dict(parse_qsl(text("DB_EXTRAS"))),
        **mode,
        "host": text("DB_HOST"),
        "port": integer("DB_PORT", 5432),
        "user": text("DB_USERNAME", "postgres"),
        "password": text("DB_PASSWORD"),
        "dbname": database or text("DB_DATABASE"),
        "connect_timeout": 3,
    }


def _connections() -> ConnectionPool[psycopg.Connection[Row]]:
    global _pool  # noqa: PLW0603  # one pool a process, made after gunicorn's fork
    with _pool_lock:
        if _pool is None:
            _pool = ConnectionPool(
                kwargs={**database_parameters(), "row_factory": dict_row},
                min_size=1,
                max_size=max(4, integer("SQLALCHEMY_POOL_SIZE", 30)),
                timeout=3,
                check=ConnectionPool.check_connection,
                open=True,
            )
            # Left to the interpreter's own end, its threads cost 20 s.
            atexit.register(_pool.close, timeout=0.5)
        return _pool


@contextmanager
def transaction() -> Iterator[psycopg.Connection[Row]]:
    """Lend a connection for one transaction. Raises psycopg errors when the database is unreachable."""
    with _connections().connection() as connection:
        yield connection


def rows(query: str, *parameters: object) -> list[Row]:
    """Run a statement and return its rows, if it has any."""
    with transaction() as connection:
        cursor = connection.execute(query, parameters)
        return cursor.fetchall() if cursor.description else []


def row(query: str, *parameters: object) -> Row | None:
    """Run a statement and return its first row."""
    found = rows(query, *parameters)
    return found[0] if found else None


def redis_tls() -> dict[str, Any]:
    """Return how a server's certificate is verified, in the terms of the Redis client; empty without TLS."""
    if not flag("REDIS_USE_SSL"):
        return {}
    # Without a requirement Dify verifies nothing.
    strict = text("REDIS_SSL_CERT_REQS") == "CERT_REQUIRED"
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED if strict else ssl.CERT_NONE,
        "ssl_ca_certs": text("REDIS_SSL_CA_CERTS") or None,
    }


def cache() -> "redis.Redis[str]":
    """Return a Redis client (its connections are pooled)."""
    tls = redis_tls()
    return redis.Redis(
        ssl=bool(tls),
        **tls,
        host=text("REDIS_HOST"),
        port=integer("REDIS_PORT", 6379),
        username=text("REDIS_USERNAME") or None,
        password=text("REDIS_PASSWORD") or None,
        db=integer("REDIS_DB", 0),
        decode_responses=True,
        socket_connect_timeout=3,
        socket_timeout=30,
    )


def revision() -> str | None:
    """Return the schema revision of the database, None when it is empty."""
    with psycopg.connect(**database_parameters()) as connection:
        known = connection.execute("select to_regclass('alembic_version')").fetchone()
        if not known or known[0] is None:
            return None
        found = connection.execute("select version_num from alembic_version").fetchone()
        return str(found[0]) if found else None


def migrate() -> str:
    """Bring the schema to this release, once, also with concurrent calls. Returns what was done."""
    wanted = REVISIONS[release()]
    lock = cache().lock("db_upgrade_lock", timeout=60)
    if not lock.acquire(blocking=False):
        return "Database migration skipped: another process holds the lock"
    try:
        current = revision()
        order = list(REVISIONS.values())
        if current is not None and (current not in order or order.index(current) > order.index(wanted)):
            raise MigrationError(f"Can't locate revision identified by '{current}'")
        with psycopg.connect(**database_parameters()) as connection:
            connection.execute(SCHEMA)
            connection.execute(model_schema.SCHEMA)
            connection.execute("create table if not exists alembic_version (version_num text primary key)")
            connection.execute("delete from alembic_version")
            connection.execute("insert into alembic_version values (%s)", (wanted,))
        return f"Database migration successful: {current or 'empty'} -> {wanted}"
    finally:
        lock.release()


def ensure_database(name: str) -> None:
    """Create a database when the server does not have it, as the plugin daemon does."""
    with suppress(psycopg.OperationalError), psycopg.connect(**database_parameters(name)):
        return
    with psycopg.connect(**database_parameters("postgres"), autocommit=True) as connection:
        if connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone() is None:
            connection.execute(f'create database "{name}"')


def storage_path(key: str) -> str:
    """Return where an uploaded file lies on the storage volume."""
    root = text("OPENDAL_FS_ROOT", "storage")
    base = root if os.path.isabs(root) else os.path.join("/app/api", root)
    return os.path.join(base, "upload_files", key)


def timestamp(moment: Any) -> int:  # noqa: ANN401  # psycopg's datetime
    """Return seconds since 1970."""
    return int(moment.timestamp()) if moment is not None else int(time.time())
