"""`dify-kit setup`: install what is missing on this machine."""

from typing import Annotated

import typer

from dify_kit.app import app


@app.command()
def setup(
    browser: Annotated[
        bool,
        typer.Option(
            "--browser", help="Only a Chromium, for the smoke tests that look through a browser (Debian)."
        ),
    ] = False,
    kubernetes: Annotated[
        bool,
        typer.Option(
            "--kubernetes", help="Also Pulumi's Kubernetes provider, which stacks on that platform need."
        ),
    ] = False,
) -> None:
    """Install what is missing: Docker engine, Pulumi engine, base image. Skips what is there."""
    from dify_kit.setup import ensure_browser, run_setup  # noqa: PLC0415  # probes the machine

    if browser:
        ensure_browser()
    else:
        run_setup(kubernetes=kubernetes)
