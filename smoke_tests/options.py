"""The options of a smoke run, from the command line and the environment."""

import os
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.settings.origins import origin_problem
from smoke_tests.masking import Secret
from smoke_tests.resolve import Resolved, read_resolve

DEFAULT_STACK = "dev"
STACK_VARIABLES = ("DIFY_STACK", "DIFY_KIT_STACK")
KEY_VARIABLE = "DIFY_API_KEY"
NODES_KEY_VARIABLE = "DIFY_NODES_KEY"
DATASET_KEY_VARIABLE = "DIFY_DATASET_KEY"
OAUTH_SECRET_VARIABLE = "DIFY_OAUTH_CLIENT_SECRET"  # noqa: S105  # a name
LLM_KEY_VARIABLE = "DIFY_LLM_KEY"
# A worker takes its first task some time after its start.
INDEXING_SECONDS = 90.0
NO_BROWSER = "none"
# Whose edge is in front of Dify.
KIT, OTHER = "kit", "other"
EDGES = (KIT, OTHER)
KEY_LENGTHS = range(8, 201)
FROM_STDIN = (
    "--api-key-file",
    "--oauth-secret-file",
    "--llm-key-file",
    "--nodes-key-file",
    "--dataset-key-file",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to test: a deployed `stack`, or any environment by its `url`; the other one is empty."""

    stack: str
    url: str
    key: Secret | None
    allowed_origins: tuple[str, ...]
    verify: bool
    # Seconds that the run may wait for rate limits; None: as the exported limits require.
    patience: float | None
    browser: str
    reports: Path
    # Another file for the JSON report.
    json: tuple[Path, ...] = ()
    # Keys of the app that runs nodes in other services, and of the knowledge API.
    nodes_key: Secret | None = None
    dataset_key: Secret | None = None
    indexing: float = INDEXING_SECONDS
    # Authorities to trust besides the usual ones, in PEM.
    ca: str = ""
    # An OAuth client to use in place of the stack's canary.
    oauth_client: str = ""
    oauth_secret: Secret | None = None
    # The key of a caller of the LLM proxy, the models of a proxy without exports, and the model to prompt.
    llm_key: Secret | None = None
    llm_models: tuple[str, ...] = ()
    llm_chat: str = ""
    # Console and web app are behind the gate.
    gated: bool = False
    # dify:apiSchema serves Dify's API schemas.
    api_schema: bool = False
    # Whose edge is in front of Dify: KIT or OTHER.
    edge: str = KIT
    # Addresses of names that DNS does not have yet.
    resolve: Resolved = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A file name for the reports: the stack's name, or the address without its scheme."""
        return self.stack or self.url.partition("://")[2].replace(":", "-").replace("[", "").replace("]", "")


def read_options(config: pytest.Config, read_stdin: Callable[[], str] = sys.stdin.read) -> Options:
    """Collect and check the options. Raises pytest.UsageError that names the option and the fix."""
    url, stack = config.getoption("url"), config.getoption("stack")
    if url and stack:
        raise pytest.UsageError("--url and --stack: give one of them; a stack exports its own address")
    if url is not None:
        url = _origin("--url", url.removesuffix("/"))
    oauth_client, oauth_secret = _oauth(config, read_stdin)
    key = _key(config, read_stdin)
    if url and key is None:
        raise pytest.UsageError(
            f"--url {url}: an app's API key is needed: set {KEY_VARIABLE}, or give --api-key-file (- is "
            "stdin). Use the key of an app whose answers cost nothing"
        )
    origins = tuple(config.getoption("allowed_origin"))
    if origins and not url:
        raise pytest.UsageError(
            "--allowed-origin needs --url; a stack has its own value: pulumi config get cors"
        )
    models = tuple(config.getoption("llm_model"))
    if models and not url:
        raise pytest.UsageError("--llm-model needs --url; a stack has its own value: pulumi config get llm")
    if config.getoption("gated") and not url:
        raise pytest.UsageError("--gated needs --url; a stack has its own value: pulumi config get oidcGate")
    if config.getoption("api_schema") and not url:
        raise pytest.UsageError(
            "--api-schema needs --url; a stack has its own value: pulumi config get apiSchema"
        )
    if config.getoption("edge") != KIT and not url:
        raise pytest.UsageError(f"--edge {OTHER} needs --url; a stack has the edge of the kit")
    llm_key = _llm_key(config, read_stdin)
    if config.getoption("llm_chat") and llm_key is None:
        raise pytest.UsageError(
            f"--llm-chat {config.getoption('llm_chat')}: a caller's key is needed: set {LLM_KEY_VARIABLE}, or "
            "give --llm-key-file (- is stdin); `dify-kit keys issue` makes one"
        )
    return Options(
        stack="" if url else stack or _stack_of(os.environ),
        url=url or "",
        key=key,
        allowed_origins=tuple(
            origin if origin == "*" else _origin("--allowed-origin", origin) for origin in origins
        ),
        verify=not config.getoption("insecure"),
        patience=None if config.getoption("patience") is None else _seconds(config, "patience"),
        browser=config.getoption("browser"),
        json=tuple(config.getoption("json")),
        reports=config.getoption("reports") or config.rootpath / "reports",
        ca=_authorities(config.getoption("ca_file")),
        nodes_key=_other_key(config, read_stdin, "--nodes-key-file", NODES_KEY_VARIABLE, "app-..."),
        dataset_key=_other_key(config, read_stdin, "--dataset-key-file", DATASET_KEY_VARIABLE, "dataset-..."),
        indexing=_seconds(config, "indexing"),
        oauth_client=oauth_client,
        oauth_secret=oauth_secret,
        llm_key=llm_key,
        llm_models=models,
        llm_chat=config.getoption("llm_chat"),
        gated=config.getoption("gated"),
        api_schema=config.getoption("api_schema"),
        edge=config.getoption("edge"),
        resolve=_resolve(config.getoption("resolve")),
    )


def _resolve(values: Sequence[str]) -> Resolved:
    try:
        return read_resolve(values)
    except ValueError as problem:
        raise pytest.UsageError(f"--resolve {problem}") from None


def _seconds(config: pytest.Config, option: str) -> float:
    seconds = float(config.getoption(option))
    if seconds < 0:
        raise pytest.UsageError(f"--{option}: seconds, 0 or more")
    return seconds


def _stack_of(environ: Mapping[str, str]) -> str:
    return next((environ[name] for name in STACK_VARIABLES if environ.get(name)), DEFAULT_STACK)


def _origin(option: str, value: str) -> str:
    if problem := origin_problem(value):
        raise pytest.UsageError(f"{option} {value!r}: {problem}; for example https://dify.example.com")
    return value


def _authorities(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        text = file.read_text(encoding="utf-8")
        ssl.create_default_context(cadata=text)
    except (OSError, UnicodeDecodeError, ssl.SSLError) as problem:
        raise pytest.UsageError(f"--ca-file {file}: no certificates in PEM: {problem}") from None
    return text


def _oauth(config: pytest.Config, read_stdin: Callable[[], str]) -> tuple[str, Secret | None]:
    """Return the OAuth client that was given, with its secret. Without a client, a secret in the shell is ignored."""
    client, file = config.getoption("oauth_client"), config.getoption("oauth_secret_file")
    if not client:
        if file is not None:
            raise pytest.UsageError("--oauth-secret-file: the client's id is missing: give --oauth-client")
        return "", None
    if file == "-" and config.getoption("api_key_file") == "-":
        raise pytest.UsageError("--api-key-file and --oauth-secret-file: only one of them can be stdin")
    if file is None and not os.environ.get(OAUTH_SECRET_VARIABLE):
        raise pytest.UsageError(
            f"--oauth-client {client}: its secret is needed: set {OAUTH_SECRET_VARIABLE}, or give "
            "--oauth-secret-file (- is stdin)"
        )
    source = OAUTH_SECRET_VARIABLE if file is None else "--oauth-secret-file"
    text = os.environ[OAUTH_SECRET_VARIABLE] if file is None else _read(file, read_stdin, source)
    secret = text.strip()
    if not _one_word(secret):
        raise pytest.UsageError(
            f"{source}: not an OAuth client's secret: {len(secret)} characters read; one word such as dks_... is "
            "expected (`dify-kit client rotate` makes a new one)"
        )
    return client, Secret(secret)


def _one_word(text: str) -> bool:
    """Return whether a text may be a key or a secret: one word of ASCII of a plausible length."""
    return len(text) in KEY_LENGTHS and text.isascii() and not any(one.isspace() for one in text)


def _llm_key(config: pytest.Config, read_stdin: Callable[[], str]) -> Secret | None:
    file = config.getoption("llm_key_file")
    if file == "-" and "-" in {config.getoption("api_key_file"), config.getoption("oauth_secret_file")}:
        raise pytest.UsageError("--llm-key-file: only one file can be stdin")
    if file is None and not os.environ.get(LLM_KEY_VARIABLE):
        return None
    source = LLM_KEY_VARIABLE if file is None else "--llm-key-file"
    text = os.environ[LLM_KEY_VARIABLE] if file is None else _read(file, read_stdin, source)
    key = text.strip()
    if not _one_word(key):
        raise pytest.UsageError(
            f"{source}: not a key of the LLM proxy: {len(key)} characters read; one word such as dkp_... is "
            "expected (`dify-kit keys issue` makes one)"
        )
    return Secret(key)


def _other_key(
    config: pytest.Config, read_stdin: Callable[[], str], option: str, variable: str, example: str
) -> Secret | None:
    """Return the key of a file or, with --url, of the environment; `_key` gives the reason."""
    file = config.getoption(_dest(option))
    if file == "-" and sum(config.getoption(_dest(one)) == "-" for one in FROM_STDIN) > 1:
        raise pytest.UsageError(f"{option}: only one file can be stdin")
    if file is None and not (config.getoption("url") and os.environ.get(variable)):
        return None
    source = variable if file is None else option
    key = (os.environ[variable] if file is None else _read(file, read_stdin, option)).strip()
    if not _one_word(key):
        raise pytest.UsageError(
            f"{source}: not a key: {len(key)} characters read; one word such as {example} is expected"
        )
    return Secret(key)


def _dest(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _key(config: pytest.Config, read_stdin: Callable[[], str]) -> Secret | None:
    given, file = config.getoption("api_key"), config.getoption("api_key_file")
    if given is not None and file is not None:
        raise pytest.UsageError("--api-key and --api-key-file: give one of them")
    if file is not None:
        return _checked("--api-key-file", _read(file, read_stdin, "--api-key-file"))
    if given is not None:
        return _checked("--api-key", given)
    # A stack has its own key, so a key in the shell belongs to another environment.
    if config.getoption("url") and (found := os.environ.get(KEY_VARIABLE)):
        return _checked(KEY_VARIABLE, found)
    return None


def _read(file: str, read_stdin: Callable[[], str], option: str) -> str:
    if file == "-":
        return read_stdin()
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise pytest.UsageError(f"{option} {file}: {problem}") from None


def _checked(source: str, text: str) -> Secret:
    key = text.strip()
    if not _one_word(key):
        raise pytest.UsageError(
            f"{source}: not an app's key: {len(key)} characters read; one word such as app-... is expected "
            "(the app's page in the console, API Access)"
        )
    return Secret(key)
