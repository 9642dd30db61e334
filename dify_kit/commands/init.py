"""`dify-kit init`: create a stack."""

import sys
from typing import Annotated, Any

import typer

from dify_kit.app import app
from dify_kit.containers.docker_host import DockerEngine, Engine
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import UsageError
from dify_kit.stack import setting_path
from dify_kit.stack.assignments import assigned
from dify_kit.stack.complete import complete
from dify_kit.stack.create import ADMIN_EMAIL, Choices, ImageSource, VectorStore, default, initialise
from dify_kit.talk import warn
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.catalogue.releases import RELEASES
from infra.guards.ports import conflict, free_port
from infra.settings.network import addresses_of


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
            "--set",
            metavar="KEY=VALUE",
            help="Any other plain setting, or a part: tls.mode=off; VALUE may be JSON; repeatable.",
        ),
    ] = None,
    ask: Annotated[
        bool | None,
        typer.Option("--ask/--no-ask", help="Ask for what no option gave. [default: on a terminal]"),
    ] = None,
) -> None:
    """Create a stack: write its settings and generate every secret it needs.

    Of a stack that was begun with `pulumi stack init`, what is missing is filled in. Never overwrites anything.
    """
    extra: dict[str, Any] = {}
    for place, value in assigned(setting or (), stack):
        extra = setting_path.put(extra, place, value)
    if cors_origin and "cors" in extra:
        raise UsageError(
            "--cors-origin and --set cors: each sets dify:cors",
            "for example: --set 'cors.v1[0]=https://a.example'",
        )
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
        extra=extra,
    )
    files = StackFiles.open(stack)
    with files.lock():
        pulumi, engine = Pulumi(files=files), DockerEngine()
        if files.configured():
            path = complete(pulumi, engine, choices)
        else:
            proposed = _propose_port(engine, choices)
            if sys.stdin.isatty() if ask is None else ask:
                choices = _interview(choices, proposed)
            path = initialise(pulumi, engine, choices)
            _warn_of_port(stack, choices, proposed)
    typer.echo(path)


def _propose_port(engine: Engine, choices: Choices) -> int:
    """Return a port that can be published: the default, else the next one that is free."""
    usual = int(default("httpPort"))
    if choices.http_port or "httpPort" in choices.extra:
        return usual
    addresses = addresses_of(choices.bind_address or str(default("bindAddress")))
    if conflict(addresses, usual, engine.publishers(usual), "", local=engine.local()) is None:
        return usual
    return free_port(engine, addresses, usual) or usual


def _warn_of_port(stack: str, choices: Choices, proposed: int) -> None:
    """Name a free port where the stack has the default one, and that is taken."""
    usual = int(default("httpPort"))
    if proposed != usual and not choices.http_port:
        command = hints.assign("httpPort", str(proposed), stack=stack)
        warn(f"port {usual} is taken, and {proposed} is free: {command}")


def _interview(choices: Choices, proposed: int) -> Choices:
    port = choices.http_port or typer.prompt("Port to publish", default=proposed, type=int, err=True)
    url = choices.public_url or typer.prompt(
        "Origin that users type", default=f"http://localhost:{port}", err=True
    )
    email = choices.admin_email or typer.prompt("Administrator's e-mail", default=ADMIN_EMAIL, err=True)
    given = {name: getattr(choices, name) for name in choices.__dataclass_fields__}
    return Choices(**given | {"http_port": port, "public_url": url, "admin_email": email})
