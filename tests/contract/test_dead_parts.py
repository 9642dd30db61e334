"""A service that is dead, or lives and cannot work, turns its own smoke tests red, and no other of these.

One at a time is broken at the main stack and repaired again.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue.container_paths import SQUID_CONFIG
from support.stacks import Stack, wait_until
from tests.integration.containers import printed
from tests.unit.smoke_runs import read

SANDBOX = {"test_code_runs_in_the_sandbox"}
ALLOWS = {"test_squid_allows_difys_own_files"}
REFUSES = {f"test_squid_refuses_private_addresses[{probe}]" for probe in ("private", "metadata")}
INDEXED = {"test_a_document_is_indexed_and_found"}
DAEMON = {"test_plugin_daemon_looks_endpoints_up", "test_plugin_daemon_answers_api"}
ALL = SANDBOX | ALLOWS | REFUSES | INDEXED | DAEMON
# A worker on a busy machine needs its time; a paused one takes no task however long that is.
RIGHT_SECONDS, BROKEN_SECONDS = "120", "8"
HEALTHY_SECONDS = 120
PSQL = (
    'PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")" '
    'exec psql -h 127.0.0.1 -U postgres -d postgres -v ON_ERROR_STOP=1 -c "$1"'
)


def failures(stack: Stack, reports: Path, *, indexing: str = BROKEN_SECONDS) -> dict[str, str]:
    """Run the tests of parts; return those that failed, with what they say."""
    done = stack.smoke(
        "-k", "test_parts", "--indexing", indexing, "--browser", "none", "--reports", str(reports)
    )
    results = {name: text for report in reports.glob("*.xml") for name, text in read(report).items()}
    assert results.keys() == ALL, done.output[-4000:]
    return {name: text for name, text in results.items() if text}


@contextmanager
def stopped(stack: Stack, service: str) -> Iterator[None]:
    container = stack.container(service)
    container.stop(timeout=5)
    try:
        yield
    finally:
        container.start()
        healthy(stack, service)


@contextmanager
def paused(stack: Stack, service: str) -> Iterator[None]:
    container = stack.container(service)
    container.pause()
    try:
        yield
    finally:
        container.unpause()


@contextmanager
def squid_open_to_all(stack: Stack) -> Iterator[None]:
    """Let squid reach private addresses, as a template that an operator shadows might."""
    container = stack.container("ssrf-proxy")
    right = printed(container, ["cat", SQUID_CONFIG])
    broken = right.replace("http_access deny to_private\n", "")
    assert broken != right
    put(container, broken)
    restart_squid(stack)
    try:
        yield
    finally:
        put(container, right)
        restart_squid(stack)


def put(container: Any, text: str) -> None:
    """Write squid's configuration, with the rights that it has."""
    _, stat = container.get_archive(SQUID_CONFIG)
    content, archive = text.encode(), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(Path(SQUID_CONFIG).name)
        entry.size, entry.mode = len(content), stat["mode"] & 0o777
        entry.uid = entry.gid = int(printed(container, ["id", "-u"]))
        tar.addfile(entry, io.BytesIO(content))
    assert container.put_archive(str(Path(SQUID_CONFIG).parent), archive.getvalue())


def restart_squid(stack: Stack) -> None:
    stack.container("ssrf-proxy").restart(timeout=10)
    healthy(stack, "ssrf-proxy")


@contextmanager
def plugin_database_closed(stack: Stack) -> Iterator[None]:
    """Take the plugin daemon's database away: its process lives on, and its health says so."""
    name = plugin_database(stack)
    sql(stack, f'alter database "{name}" allow_connections false')
    sql(stack, f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
    try:
        yield
    finally:
        sql(stack, f'alter database "{name}" allow_connections true')


def plugin_database(stack: Stack) -> str:
    variables = stack.container("plugin-daemon").attrs["Config"]["Env"]
    return next(str(one).partition("=")[2] for one in variables if one.startswith("DB_DATABASE="))


def sql(stack: Stack, statement: str) -> None:
    done = stack.container("db-postgres").exec_run(["sh", "-c", PSQL, "sh", statement])
    assert done.exit_code == 0, done.output.decode()


def healthy(stack: Stack, service: str) -> None:
    """Wait until a service is healthy again."""
    wait_until(lambda: stack.well(service), seconds=HEALTHY_SECONDS, what=f"{service} is healthy")


def test_a_whole_stack_passes(stack: Stack, tmp_path: Path) -> None:
    assert failures(stack, tmp_path, indexing=RIGHT_SECONDS) == {}


@pytest.mark.parametrize(
    ("breaking", "tests", "message"),
    [
        pytest.param(lambda stack: stopped(stack, "sandbox"), SANDBOX, "sandbox: ", id="sandbox-dead"),
        pytest.param(
            lambda stack: stopped(stack, "ssrf-proxy"), ALLOWS | REFUSES, "ssrf-proxy: ", id="squid-dead"
        ),
        pytest.param(squid_open_to_all, REFUSES, "squid must refuse", id="squid-open"),
        pytest.param(lambda stack: paused(stack, "worker"), INDEXED, "worker: ", id="worker-dead"),
        pytest.param(plugin_database_closed, DAEMON, "plugin-daemon: ", id="plugin-daemon-without-database"),
    ],
)
def test_a_broken_part_turns_its_tests_red(
    stack: Stack,
    tmp_path: Path,
    breaking: Callable[[Stack], Any],
    tests: set[str],
    message: str,
) -> None:
    with breaking(stack):
        # What the engine finds healthy says nothing about the work.
        failed = failures(stack, tmp_path, indexing=BROKEN_SECONDS if tests == INDEXED else RIGHT_SECONDS)

    assert failed.keys() == tests
    assert all(message in text for text in failed.values()), failed
