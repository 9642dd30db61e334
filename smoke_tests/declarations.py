"""The options of a smoke run, as pytest's command line declares them."""

from pathlib import Path

import pytest

from dify_kit.chromium import VARIABLE
from smoke_tests.options import (
    DATASET_KEY_VARIABLE,
    DEFAULT_STACK,
    EDGES,
    INDEXING_SECONDS,
    KEY_VARIABLE,
    KIT,
    LLM_KEY_VARIABLE,
    NO_BROWSER,
    NODES_KEY_VARIABLE,
    OAUTH_SECRET_VARIABLE,
    OTHER,
    STACK_VARIABLES,
)


def add_options(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("smoke", "smoke tests of a deployed Dify")
    group.addoption(
        "--stack",
        metavar="NAME",
        help=f"a deployed stack, read through its exports [{', '.join(STACK_VARIABLES)}, or {DEFAULT_STACK}]",
    )
    group.addoption("--url", metavar="ORIGIN", help="test this address, without Pulumi and without Docker")
    group.addoption(
        "--api-key",
        metavar="KEY",
        help=f"an app's key; the process list shows it, {KEY_VARIABLE} and --api-key-file do not",
    )
    group.addoption("--api-key-file", metavar="FILE", help="read the app's key from this file; - is stdin")
    group.addoption(
        "--nodes-key-file",
        metavar="FILE",
        help="read the key of an app made of apps/canary-nodes.yml from this file; - is stdin; with --url, "
        f"{NODES_KEY_VARIABLE} is the default; a stack has its own",
    )
    group.addoption(
        "--dataset-key-file",
        metavar="FILE",
        help="read a key of the knowledge API from this file; - is stdin; with --url, "
        f"{DATASET_KEY_VARIABLE} is the default; a stack has its own",
    )
    group.addoption(
        "--indexing",
        metavar="SECONDS",
        type=float,
        default=INDEXING_SECONDS,
        help="the time in seconds in which a short document must be indexed [%(default)s]",
    )
    group.addoption(
        "--oauth-client",
        metavar="ID",
        default="",
        help=f"an OAuth client with the scopes chat and conversations; its secret comes from {OAUTH_SECRET_VARIABLE} "
        "or --oauth-secret-file",
    )
    group.addoption(
        "--oauth-secret-file",
        metavar="FILE",
        help="read the OAuth client's secret from this file; - is stdin",
    )
    group.addoption(
        "--llm-key-file",
        metavar="FILE",
        help="read the key of a caller of the LLM proxy from this file; - is stdin; without it, "
        f"{LLM_KEY_VARIABLE} is read",
    )
    group.addoption(
        "--llm-model",
        metavar="NAME",
        action="append",
        default=[],
        help="with --url: a model that the LLM proxy serves; repeat it for every model; a stack exports its own",
    )
    group.addoption(
        "--llm-chat",
        metavar="NAME",
        default="",
        help="send two short prompts to this model through the LLM proxy, which costs money; without it, none is sent",
    )
    group.addoption(
        "--allowed-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="with --url: an origin that may call /v1 from a browser; repeatable; without it, no origin is expected to",
    )
    group.addoption(
        "--gated",
        action="store_true",
        help="with --url: console and web app are behind a gate (dify:oidcGate); a stack exports this",
    )
    group.addoption(
        "--api-schema",
        action="store_true",
        help="with --url: Dify's API schemas are served by setting (dify:apiSchema); a stack exports this",
    )
    group.addoption(
        "--edge",
        choices=EDGES,
        default=KIT,
        help=f"with --url: whose edge is in front of Dify; {OTHER} leaves out what only the kit's edge promises "
        "[%(default)s]",
    )
    group.addoption(
        "--resolve",
        metavar="HOST:PORT:ADDRESS",
        action="append",
        default=[],
        help="connect to this address for HOST:PORT, before DNS has it; repeatable; no proxy is used then",
    )
    group.addoption(
        "--insecure", action="store_true", help="accept any certificate, such as a self-signed one"
    )
    group.addoption(
        "--ca-file",
        metavar="FILE",
        type=Path,
        help="a private authority to trust, in PEM; a self-signed stack exports its own",
    )
    group.addoption(
        "--patience",
        metavar="SECONDS",
        type=float,
        help="the time in seconds that the whole run may wait for rate limits [what the stack's limits require; "
        "120 with --url]",
    )
    group.addoption(
        "--browser",
        metavar="PATH",
        default="",
        help=f"the Chromium for the tests of the browser's view [{VARIABLE}, or the first one on this machine]; "
        f"{NO_BROWSER} leaves them out",
    )
    group.addoption(
        "--reports",
        metavar="DIR",
        type=Path,
        help="where the reports go (JUnit, HTML, JSON) [reports/ of the checkout]",
    )
    group.addoption(
        "--json",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write the results as JSON to this file in addition; repeatable",
    )
