"""`dify-kit init`: create a stack."""

import json
import sys
from typing import Annotated, Any

import typer

from dify_kit.app import app
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import UsageError
from dify_kit.stack.create import ADMIN_EMAIL, Choices, ImageSource, VectorStore, default, initialise
from dify_kit.workspace.files import StackFiles
from infra.catalogue.releases import RELEASES


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
