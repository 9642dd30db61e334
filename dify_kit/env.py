"""The commands that prepare a shell or read a stack: init, env, output, password."""

import json
import os
import shlex
import sys
from typing import Annotated, Any

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.docker_host import DockerEngine
from dify_kit.errors import KitError, UsageError
from dify_kit.init import ADMIN_EMAIL, Choices, ImageSource, VectorStore, default, initialise
from dify_kit.pulumi_cli import Pulumi
from dify_kit.stack_files import PROJECT, StackFiles
from infra.engine import VARIABLES
from infra.releases import RELEASES

_EXPORTED = (
    "PATH",
    "PULUMI_",
    "DIFY_KIT_HOME",
    "VIRTUAL_ENV",
    "DOCKER_HOST",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
)


@app.command()
def init(  # noqa: PLR0917  # Typer calls it by name
    stack: Annotated[
        str, typer.Argument(metavar="STACK", help="Name of the new stack, such as dev or production.")
    ],
    images: Annotated[
        ImageSource | None,
        typer.Option(help="Where images come from. [default: registry where it can be reached, else local]"),
    ] = None,
    mirror: Annotated[str, typer.Option(help="Registry prefix, for --images mirror.")] = "",
    release: Annotated[
        str, typer.Option(help=f"Dify release: {', '.join(RELEASES)}. [default: as Pulumi.yaml says]")
    ] = "",
    http_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to publish. [default: 8080]")
    ] = None,
    bind_address: Annotated[str, typer.Option(help="Address to publish on. [default: 127.0.0.1]")] = "",
    public_url: Annotated[
        str, typer.Option(help="Origin that users type. [default: http://localhost:<http-port>]")
    ] = "",
    vector_store: Annotated[
        VectorStore | None, typer.Option(help="[default: weaviate, or pgvector with --images local]")
    ] = None,
    admin_email: Annotated[
        str, typer.Option(help="The administrator's sign-in. [default: admin@example.com]")
    ] = "",
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Origin that may call /v1 from a browser; repeatable.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other plain setting; VALUE may be JSON; repeatable."
        ),
    ] = None,
    ask: Annotated[
        bool | None,
        typer.Option("--ask/--no-ask", help="Ask for what no option gave. [default: on a terminal]"),
    ] = None,
) -> None:
    """Create a stack: write its settings and generate every secret it needs. Never overwrites one."""
    choices = Choices(
        images=images,
        mirror=mirror,
        release=release,
        http_port=http_port,
        bind_address=bind_address,
        public_url=public_url,
        vector_store=vector_store,
        admin_email=admin_email,
        cors_origins=tuple(cors_origin or ()),
        extra=dict(_parse(item) for item in setting or ()),
    )
    files = StackFiles.open(stack)
    with files.lock():
        pulumi, engine = Pulumi(files=files), DockerEngine()
        if not files.configured() and (sys.stdin.isatty() if ask is None else ask):
            choices = _interview(choices)
        path = initialise(pulumi, engine, choices)
    typer.echo(path)


def _parse(item: str) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(f"--set {item}: KEY=VALUE is expected", "for example: --set maxUploadMegabytes=50")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _interview(choices: Choices) -> Choices:
    port = choices.http_port or typer.prompt(
        "Port to publish", default=int(default("httpPort")), type=int, err=True
    )
    url = choices.public_url or typer.prompt(
        "Origin that users type", default=f"http://localhost:{port}", err=True
    )
    email = choices.admin_email or typer.prompt("Administrator's e-mail", default=ADMIN_EMAIL, err=True)
    given = {name: getattr(choices, name) for name in choices.__dataclass_fields__}
    return Choices(**given | {"http_port": port, "public_url": url, "admin_email": email})


@app.command()
def env(stack: Stack = DEFAULT_STACK) -> None:
    """Print shell commands that prepare plain `pulumi`: eval "$(.venv/bin/dify-kit env)"."""
    files = StackFiles.open(stack)
    environment = Pulumi(files=files).environment
    for name in sorted(environment):
        if not name.startswith(_EXPORTED) or name.startswith("PULUMI_OPTION"):
            continue
        if name == "PULUMI_CONFIG_PASSPHRASE" or "TOKEN" in name:
            continue  # in the caller's environment already, and not to be printed
        if environment[name] != os.environ.get(name):
            typer.echo(f"export {name}={shlex.quote(environment[name])}")
    for name in VARIABLES:
        if name in os.environ and name not in environment:
            # The provider would take it before what is exported here.
            typer.echo(f"unset {name}")


@app.command()
def output(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="One export; all of them as JSON when left out.")
    ] = "",
    stack: Stack = DEFAULT_STACK,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print secret exports in plain text.")
    ] = False,
) -> None:
    """Print the stack's exports as JSON, or one of them as plain text."""
    files = StackFiles.open(stack)
    _require_created(files)
    outputs = json.loads(
        Pulumi(files=files)
        .run("stack", "output", "--json", *(["--show-secrets"] if show_secrets else []))
        .stdout
    )
    if not name:
        typer.echo(json.dumps(outputs, indent=2, sort_keys=True))
        return
    if name not in outputs:
        known = ", ".join(sorted(outputs)) or "none: the stack is not deployed"
        raise KitError(f"stack {stack} has no export {name}", f"exports: {known}")
    value = outputs[name]
    typer.echo(value if isinstance(value, str) else json.dumps(value))


@app.command()
def password(stack: Stack = DEFAULT_STACK) -> None:
    """Print the administrator's password. It is the only thing on stdout."""
    files = StackFiles.open(stack)
    _require_created(files)
    typer.echo(Pulumi(files=files).run("config", "get", f"{PROJECT}:adminPassword").stdout.strip())


def _require_created(files: StackFiles) -> None:
    if not files.configured():
        raise KitError(
            f"stack {files.stack} does not exist on this machine (no {files.stored})",
            f"create it with `make up STACK={files.stack}`, or restore the data directory {files.data.root}",
        )
