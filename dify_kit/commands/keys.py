"""The commands about keys: those of the LLM proxy's upstreams and callers, and the one that signs tokens."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import docker
import typer

from dify_kit.app import COMMANDS, DEFAULT_STACK, Group, Stack, app
from dify_kit.commands import up
from dify_kit.commands.selected import require_configured
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError, UsageError
from dify_kit.stack import callers, dify_key, llm_usage, rotation, signing_keys, upstreams
from dify_kit.talk import say, warn
from dify_kit.workspace.files import PROJECT, StackFiles, write_private
from infra import engine, hints
from infra.engine.runtime import WorkloadError, runtime
from infra.settings import proxy_keys

keys = typer.Typer(
    cls=Group,
    name="keys",
    help=COMMANDS["keys"],
    no_args_is_help=True,
)
app.add_typer(keys)

MAX_DAYS = 3650
ENGINE_SECONDS = 30
SIGNING = "signing"
# nginx's worker_shutdown_timeout: how long a worker with the old key may finish streams.
LAST_STREAM_MINUTES = 30
_OLD_WORKER = "worker process is shutting down"

Upstream = Annotated[str, typer.Argument(metavar="UPSTREAM", help="Its name in dify:llm.upstreams.")]
Stdin = Annotated[
    bool, typer.Option("--stdin", help="Read the key from standard input, not from the variable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def _next(stack: str) -> str:
    return f"`{hints.kit('up', stack=stack)}` puts it into effect"


# --- keys of upstreams -------------------------------------------------------------------------------------------


@keys.command(name="set")
def set_key(upstream: Upstream, stack: Stack = DEFAULT_STACK, stdin: Stdin = False) -> None:
    """Put an upstream's key into the encrypted settings, from its variable, standard input or a prompt."""
    files = StackFiles.open(stack)
    require_configured(files)
    one = upstreams.one_of(files, upstream)
    key = upstreams.obtain(one, from_stdin=stdin)
    with files.lock():
        upstreams.store(Pulumi(files=files), upstream, key)
    say(f"key of {upstream}: {upstreams.masked(key)}; {_next(stack)}")


@keys.command()
def show(stack: Stack = DEFAULT_STACK, as_json: Json = False) -> None:
    """Show which upstreams have a key, masked."""
    files = StackFiles.open(stack)
    require_configured(files)
    known = upstreams.stored(Pulumi(files=files))
    rows = [
        {
            "upstream": one.name,
            "preset": one.preset,
            "baseUrl": one.base_url,
            "key": upstreams.masked(known[name]) if name in known else "",
        }
        for name, one in upstreams.configured(files).items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.echo("\t".join([row["upstream"], row["preset"], row["baseUrl"], row["key"] or "not set"]))


@keys.command()
def check(
    upstream: Annotated[
        str, typer.Argument(metavar="[UPSTREAM]", help="One upstream; all of them when left out.")
    ] = "",
    stack: Stack = DEFAULT_STACK,
    as_json: Json = False,
) -> None:
    """Ask each upstream for its models, with the stored key and from inside the edge, as requests go.

    From this machine, where the stack is not deployed. A model of `dify:llm` that the upstream does not list is a
    warning: lists may leave models out.
    """
    files = StackFiles.open(stack)
    require_configured(files)
    chosen = [upstreams.one_of(files, upstream)] if upstream else list(upstreams.configured(files).values())
    pulumi = Pulumi(files=files)
    known, container, served = (
        upstreams.stored(pulumi),
        upstreams.edge_container(pulumi),
        upstreams.served(files),
    )
    if not container:
        say(
            "the stack is not deployed: asked from this machine, whose way may be another one than the edge's"
        )
    rows = []
    for one in chosen:
        try:
            found = upstreams.ask_models(one, known.get(one.name, ""), container, stack=stack)
            missing = sorted(served.get(one.name, set()) - set(found))
            rows.append({"upstream": one.name, "ok": True, "models": found, "missing": missing})
            say(f"✓ {one.name}: takes the key {upstreams.masked(known[one.name])}, {len(found)} models")
            for model in missing:
                warn(
                    f"{one.name}: its list of models does not have {model}, which {PROJECT}:llm names; "
                    f"{hints.nearest(model, found)}"
                )
        except KitError as problem:
            rows.append({"upstream": one.name, "ok": False, "problem": problem.message})
            warn(f"{problem.message}; {problem.hint}")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


@keys.command()
def rotate(  # noqa: PLR0917  # Typer calls it by name
    key: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="database, redis, sandbox, plugin, agent, vector-store, admin, init, dify, signing, or an upstream.",
        ),
    ],
    stack: Stack = DEFAULT_STACK,
    no_overlap: Annotated[
        bool,
        typer.Option(
            "--no-overlap",
            help="signing, dify: a key was stolen, so the older ones end with the next `up`.",
        ),
    ] = False,
    stdin: Stdin = False,
    wait: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=LAST_STREAM_MINUTES,
            help="upstream: minutes to wait for streams with the old key. [default: 1]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replace a secret that is in use by a new one. Says first what does not answer, and for how long.

    database: PostgreSQL's password. Dify restarts once.

    redis: Redis' password. The old one is accepted until every client has restarted. Dify restarts once.

    sandbox: the key of the code sandbox. plugin: the daemon's key and its key of api. agent: the three secrets of the
    agent backend. vector-store: the key of Weaviate or Qdrant. Their server restarts, then Dify once.

    admin: the administrator's password; nothing restarts. init: the password of the first set-up. Dify restarts once.

    dify: what Dify calls the LLM proxy with. Deployed; the old one is refused from the `up` after that.

    signing: what signs access tokens. Used from the next `up`; tokens of the old one stay valid until they expire.

    An upstream: the new key is tried, stored and deployed; says when the old one is no longer used.

    After a run that was cut off, the same command or `up` completes the rotation. SECRET_KEY cannot be rotated.
    """
    if rotation.known(key):
        if stdin or wait is not None or no_overlap or as_json:
            raise UsageError(
                f"{key}: no option but --stack applies",
                "leave them out: the value is generated here",
            )
        _rotate_secret(key, stack)
        return
    if key == SIGNING:
        if stdin or wait is not None:
            raise UsageError(
                "--stdin and --wait are for an upstream's key", "leave them out: the key is made here"
            )
        signing_keys.rotate_and_tell(stack, overlap=not no_overlap, as_json=as_json)
        return
    if key == proxy_keys.DIFY:
        if stdin or wait is not None or as_json:
            raise UsageError(
                "dify: no option but --no-overlap applies", "leave them out: the key is made here"
            )
        _rotate_dify(stack, overlap=not no_overlap)
        return
    if no_overlap or as_json:
        raise UsageError("--no-overlap and --json are for the keys that are made here", "leave them out")
    _rotate_upstream(key, stack, from_stdin=stdin, minutes=1 if wait is None else wait)


def _rotate_secret(name: str, stack: str) -> None:
    files = StackFiles.open(stack)
    require_configured(files)
    with files.lock():
        rotation.begin(Pulumi(files=files), name)
    try:
        up.up(stack=stack, verbose=False, timeout=90, skip_setup=True)
    except KitError:
        warn(f"the rotation of {name} is not complete: the same command completes it, and so does any `up`")
        raise
    say(f"{name} is rotated: every service uses the new value, and the old one is refused")


def _rotate_dify(stack: str, *, overlap: bool) -> None:
    files = StackFiles.open(stack)
    pulumi = Pulumi(files=files)
    with files.lock():
        dify_key.begin(pulumi, overlap=overlap)
    if not pulumi.created() or not pulumi.state().outputs:
        say(f"Dify has a new key for the LLM proxy; {_next(stack)}")
        return
    up.up(stack=stack, verbose=False, timeout=90, skip_setup=True)
    say("Dify uses its new key for the LLM proxy")


def _rotate_upstream(upstream: str, stack: str, *, from_stdin: bool, minutes: float) -> None:
    files = StackFiles.open(stack)
    one = upstreams.one_of(files, upstream)
    key = upstreams.obtain(one, from_stdin=from_stdin)
    pulumi = Pulumi(files=files)
    if upstreams.stored(pulumi).get(upstream) == key:
        raise KitError(f"{upstream} has this key already", f"set {one.known.variable} to the new one")
    upstreams.ask_models(one, key, upstreams.edge_container(pulumi), stack=stack)
    with files.lock():
        upstreams.store(pulumi, upstream, key)
    up.up(stack=stack, verbose=False, timeout=90, skip_setup=True)
    container = llm_usage.counter(pulumi.state().outputs.get("containers") or {})
    left = _wait_for_old_workers(lambda: _old_workers(container), minutes * 60)
    if left:
        say(
            f"new requests use {upstreams.masked(key)}; {left} worker(s) of nginx still finish streams with the old "
            f"key, for {LAST_STREAM_MINUTES} minutes at most: revoke it after that"
        )
        return
    say(f"the old key of {upstream} is no longer used: revoke it at {one.known.register or one.base_url}")


def _wait_for_old_workers(count: Callable[[], int], seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while (left := count()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def _old_workers(container: str) -> int:
    """Return how many workers of an earlier configuration are left in nginx's container, or pods of nginx that end."""
    try:
        with runtime(container, ENGINE_SECONDS) as edge:
            titles = edge.run(["sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'"]).output
            return titles.count(_OLD_WORKER) + edge.ending()
    except (WorkloadError, engine.EngineChoiceError, docker.errors.DockerException, OSError) as problem:
        raise KitError(
            f"cannot find out whether the old key is still used: {problem}",
            f"wait {LAST_STREAM_MINUTES} minutes before you revoke it",
        ) from None


# --- keys issued to callers --------------------------------------------------------------------------------------


@keys.command()
def issue(  # noqa: PLR0917  # Typer calls it by name
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for; usage is counted under it.")],
    days: Annotated[
        int | None, typer.Option(min=1, max=MAX_DAYS, help="Valid for so many days. [default: until revoked]")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Dollars a month, 0 for none. [default: llm.monthlyBudget]"),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=0, max=1_000_000, help="0 for no limit. [default: llm.limits]")
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="0 for no limit. [default: llm.limits]")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model; repeatable.")] = None,
    internal: Annotated[
        bool, typer.Option("--internal", help="Only inside the stack's network, as for Dify itself.")
    ] = False,
    stack: Stack = DEFAULT_STACK,
) -> None:
    """Issue a key to a caller of the LLM proxy. It is printed on stdout this once and kept as a hash."""
    if not proxy_keys.NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a caller", "at most 40 lower-case letters, digits, '.', '_' and '-'"
        )
    files = StackFiles.open(stack)
    require_configured(files)
    if name == proxy_keys.DIFY and dify_key.SETTING in files.config():
        raise KitError(
            "dify is the stack's own caller, with a key of its own",
            f"choose another name; `{hints.kit('keys', 'rotate', 'dify', stack=stack)}` changes that key",
        )
    callers.refuse_unserved(files, model or ())
    with files.lock():
        path, known = _read(files)
        if any(key.name == name and not key.revoked for key in known):
            raise KitError(
                f"{name} has a key already",
                f"`{hints.kit('keys', 'revoke', name, stack=stack)}` first, or choose another name",
            )
        now = datetime.now(UTC)
        secret, kept = proxy_keys.issue(
            name,
            now,
            expires=proxy_keys.timestamp(now + timedelta(days=days)) if days else "",
            budget=budget,
            requests_per_minute=requests_per_minute,
            concurrent=concurrent,
            models=tuple(dict.fromkeys(model or ())),
            internal=internal,
        )
        write_private(path, proxy_keys.text_of([*known, kept]))
    for line in callers.warnings(files, name):
        warn(line)
    say(f"key of {name}, shown this once; {_next(stack)}")
    typer.echo(secret)


@keys.command(name="list")
def list_keys(stack: Stack = DEFAULT_STACK, as_json: Json = False) -> None:
    """List the keys issued to callers, without anything secret."""
    path, known = _read(StackFiles.open(stack))
    now = datetime.now(UTC)
    rows = [
        {
            "name": key.name,
            "prefix": key.prefix,
            "state": "revoked" if key.revoked else "valid" if key.valid_at(now) else "expired",
            "created": key.created,
            "expires": key.expires,
            "budget": key.budget,
            "requestsPerMinute": key.requests_per_minute,
            "concurrent": key.concurrent,
            "models": list(key.models),
            "internal": key.internal,
        }
        for key in known
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for key, row in zip(known, rows, strict=True):
        expires = f"until {key.expires}" if key.expires else "for ever"
        typer.echo(f"{key.name}\t{key.prefix}...\t{row['state']}\t{expires}\t{callers.limits_of(key)}")
    if not rows:
        say(f"no keys in {path}")


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key.")], stack: Stack = DEFAULT_STACK
) -> None:
    """Revoke a caller's key. The next `up` puts it into effect."""
    files = StackFiles.open(stack)
    with files.lock():
        path, known = _read(files)
        if not any(key.name == name and not key.revoked for key in known):
            raise KitError(
                f"{name} has no key that could be revoked",
                f"`{hints.kit('keys', 'list', stack=stack)}` shows them",
            )
        write_private(path, proxy_keys.text_of(proxy_keys.revoked(known, name, datetime.now(UTC))))
    say(f"the key of {name} is revoked; {_next(stack)}")


def _read(files: StackFiles) -> tuple[Path, tuple[proxy_keys.ProxyKey, ...]]:
    require_configured(files)
    path = proxy_keys.file_of(files.config_file, files.stack)
    try:
        return path, proxy_keys.read(path)
    except proxy_keys.ProxyKeyError as problem:
        raise KitError(str(problem), "nothing was changed") from None
