"""Rendering: from contexts to the text of configuration files. Pure, except for reading templates.

Operators extend without forking: a directory of their own (`dify:templatesDir`) shadows any template by its
path below templates/, and adds snippets where the templates include them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import pulumi

from infra import engine, host_addresses, ports
from infra.addresses import SPECIAL_PURPOSE
from infra.edge_context import EdgeContext, escape_regex
from infra.edge_paths import EDGE_DIRECTORY
from infra.settings import Settings

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
SQUID_CONFIG = "/etc/squid/squid.conf"
SUFFIX = ".j2"
# Files of nginx that are no templates: scripts go as they are, and what is rendered is data beside them.
SCRIPT_SUFFIX = ".js"
SNIPPETS = "snippets"

# Where a container of the stack can have its address.
STACK_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "127.0.0.0/8", "::1/128")


class RenderError(Exception):
    """A template cannot be rendered. The message names the template and the line."""


@dataclass(frozen=True, kw_only=True)
class ProxyContext:
    """What the squid templates read, as `proxy`."""

    name: str
    max_body_megabytes: int
    port: int = ports.SQUID
    private_networks: tuple[str, ...] = SPECIAL_PURPOSE
    stack_networks: tuple[str, ...] = STACK_NETWORKS
    allowed_addresses: tuple[str, ...] = ()
    allowed_domains: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RedisContext:
    """What the Redis template reads, as `redis`."""

    password: str
    port: int = ports.REDIS

    @property
    def quoted_password(self) -> str:
        """The password between double quotes, as Redis reads it."""
        return self.password.replace("\\", "\\\\").replace('"', '\\"')


def jinja_environment(overrides: Path | None = None) -> jinja2.Environment:
    """Return the environment of all templates; a file in `overrides` comes before ours of the same path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_directories(overrides)),
        # A missing value stops the render; it never becomes an empty string.
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # configuration files, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["regex"] = escape_regex
    return environment


def render(template: str, context: dict[str, object], overrides: Path | None = None) -> str:
    """Render one template by its path below templates/. Raises RenderError."""
    try:
        return jinja_environment(overrides).get_template(template).render(context)
    except jinja2.TemplateSyntaxError as problem:
        raise RenderError(
            f"{problem.name or template}, line {problem.lineno}: {problem.message}"
        ) from problem
    except (jinja2.TemplateError, ValueError, TypeError) as problem:
        raise RenderError(f"{template}{_line_of(problem)}: {problem}") from problem


def _directories(overrides: Path | None) -> list[Path]:
    return [overrides, TEMPLATES] if overrides else [TEMPLATES]


def _source(name: str, overrides: Path | None) -> Path | None:
    """Return the file of this path below templates/, the operator's before ours; None where there is none."""
    return next((path for one in _directories(overrides) if (path := one / name).is_file()), None)


def _line_of(problem: BaseException) -> str:
    """Return the template's line from the traceback: Jinja puts its own frames there."""
    line = ""
    trace = problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(SUFFIX):
            line = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return line


def edge_sources(overrides: Path | None = None) -> list[str]:
    """Return nginx's templates and scripts, ours and the operator's, by their path below templates/.

    Raises RenderError for a template and a script that become the same file.
    """
    names = jinja_environment(overrides).list_templates(
        filter_func=lambda name: name.startswith("nginx/") and name.endswith((SUFFIX, SCRIPT_SUFFIX))
    )
    if twice := [name for name in names if f"{name}{SUFFIX}" in names]:
        raise RenderError(
            f"{twice[0]}{SUFFIX} and {twice[0]} become the same file: a script that takes the place of ours "
            f"is called {twice[0]}"
        )
    return sorted(names)


def template_of(path: str, overrides: Path | None = None) -> str:
    """Return the file that a rendered file of the edge comes from, by its path below the configuration."""
    names = (f"nginx/{path}", f"nginx/{path}{SUFFIX}")
    return str(next(found for name in names if (found := _source(name, overrides)) is not None))


@dataclass(frozen=True, kw_only=True)
class EdgeConfiguration:
    """nginx's files by their path below the configuration's directory, and the name of them all."""

    revision: str
    files: Mapping[str, str]


def edge_configuration(context: EdgeContext, *, overrides: Path | None = None) -> EdgeConfiguration:
    """Render nginx's files.

    The revision that nginx reports is the digest of everything else: equal configurations have one name.
    """
    draft = _edge_files(replace(context, revision=""), overrides)
    text = "\0".join(f"{path}\0{text}" for path, text in sorted(draft.items()))
    revision = hashlib.sha256(text.encode()).hexdigest()[:12]
    return EdgeConfiguration(
        revision=revision, files=_edge_files(replace(context, revision=revision), overrides)
    )


def edge_files(context: EdgeContext, *, overrides: Path | None = None) -> dict[str, str]:
    """Render nginx's files as they lie in a directory of their own: absolute path -> text."""
    configuration = edge_configuration(context, overrides=overrides)
    return {f"{EDGE_DIRECTORY}/{path}": text for path, text in configuration.files.items()}


def _edge_files(context: EdgeContext, overrides: Path | None) -> dict[str, str]:
    def text_of(name: str) -> str:
        script = _source(name, overrides) if name.endswith(SCRIPT_SUFFIX) else None
        return script.read_text(encoding="utf-8") if script else render(name, {"edge": context}, overrides)

    return {
        name.removeprefix("nginx/").removesuffix(SUFFIX): text_of(name) for name in edge_sources(overrides)
    }


def squid_files(service: str, settings: Settings) -> dict[str, str]:
    """Render the configuration of `ssrf_proxy` or `agent_ssrf_proxy`: path in the container -> text."""
    template = "squid/agent.conf.j2" if service == "agent_ssrf_proxy" else "squid/sandbox.conf.j2"
    allowed = settings.ssrf_allow_private
    context = ProxyContext(
        name=service,
        max_body_megabytes=settings.max_upload_megabytes,
        private_networks=(*SPECIAL_PURPOSE, *_denied_besides(settings)),
        allowed_addresses=tuple(item for item in allowed if item[0].isdigit() or ":" in item),
        allowed_domains=tuple(item for item in allowed if not item[0].isdigit() and ":" not in item),
    )
    return {SQUID_CONFIG: render(template, {"proxy": context}, settings.templates_dir)}


def _denied_besides(settings: Settings) -> tuple[str, ...]:
    """Return what the way out is refused besides: the engine's own machine, and what the operator names."""
    try:
        own = host_addresses.engine_networks(engine.chosen())
    except engine.EngineChoiceError:
        own = ()  # port_guard says so
    listed = dict.fromkeys((*settings.ssrf_deny, *own))
    allowed = set(settings.ssrf_allow_private)
    return tuple(item for item in listed if item not in allowed)


def redis_config(settings: Settings, password: pulumi.Output[str]) -> pulumi.Output[str]:
    """Render the configuration of a Redis. It holds the password, so it is a secret."""
    return password.apply(
        lambda plain: render(
            "data/redis.conf.j2", {"redis": RedisContext(password=plain)}, settings.templates_dir
        )
    )
