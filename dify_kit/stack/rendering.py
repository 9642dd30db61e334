"""Every rendered file of a stack, to read, after the checks that a deployment relies on."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.talk import say
from infra import hints
from infra.catalogue.data_services import DATA_EGRESS, DATA_PROXY
from infra.catalogue.services import LITELLM, LLM_EDGE, NGINX, SERVICES
from infra.edge import check as nginx_check
from infra.edge import llm as edge_llm
from infra.edge.paths import CERTIFICATE_FILE, EDGE_DIRECTORY
from infra.edge.render import edge_files
from infra.edge.roles import edge_contexts
from infra.edge.tls import public_files
from infra.guards import images as image_guard
from infra.jinja import RenderError, render
from infra.platforms import images
from infra.services import litellm
from infra.services import litellm_files as litellm_config
from infra.services.external_data import stream_proxy_files
from infra.services.files import RedisContext, squid_files
from infra.settings.stack import Settings

MARKER = ".dify-kit-render"
BUILD_SECONDS = 900
# Rendered for reading: the file on the container has the password here.
HIDDEN_PASSWORD = "<dify:redisPassword>"  # noqa: S105  # a placeholder


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """The rendered files of one service: their paths in its container, and their text."""

    service: str
    files: dict[str, str]


def rendered_files(settings: Settings) -> list[Rendered]:
    """Render everything that a stack mounts or uploads. Raises KitError that names template and line."""
    release = settings.dify
    overrides = settings.templates_dir
    try:
        proxies = [
            Rendered(service=name, files=squid_files(name, settings))
            for name, service in SERVICES.items()
            if service.image == "squid" and release.has(name)
        ]
        proxies += [
            Rendered(service=name, files=stream_proxy_files(name, settings))
            for name in (DATA_PROXY, DATA_EGRESS)
            if settings.external_services
        ]
        redis = render("data/redis.conf.j2", {"redis": RedisContext(password=HIDDEN_PASSWORD)}, overrides)
        edges = {
            service: edge_files(context, overrides=overrides)
            for service, context in edge_contexts(settings, release).items()
        }
        llm = {**edge_llm.public_files(settings.llm), **edge_llm.hidden_files(settings.llm)}
        edges[LLM_EDGE if LLM_EDGE in edges else NGINX] |= _placed(llm)
        engine = {}
        if settings.llm and settings.llm.litellm:
            engine = litellm_config.hidden_files(settings.llm, overrides)
        # The certificate without its key, which stays secret.
        edges[NGINX] |= _placed(public_files(settings))
    except RenderError as problem:
        raise KitError(f"rendering failed: {problem}", "fix the template; nothing was deployed") from None
    return [
        *(Rendered(service=service, files=files) for service, files in edges.items()),
        *proxies,
        *([] if settings.redis else [Rendered(service="redis", files={"/etc/redis/redis.conf": redis})]),
        *(
            [
                Rendered(
                    service=LITELLM,
                    files={f"{litellm.CURRENT}/{name}": text for name, text in engine.items()},
                )
            ]
            if engine
            else []
        ),
    ]


def _placed(files: Mapping[str, str]) -> dict[str, str]:
    """Return files of nginx by their path in its container."""
    return {f"{EDGE_DIRECTORY}/{path}": text for path, text in files.items()}


def write(settings: Settings, out: Path) -> list[Path]:
    """Write every rendered file below `out/<service>/` and return the paths.

    An earlier rendering there is replaced; any other content is left alone and ends the command.
    """
    if out.exists() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise KitError(
            f"{out} holds files that were not rendered here", "name another directory, or empty it"
        )
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARKER).write_text("made by dify-kit render\n", encoding="utf-8")
    written = []
    for one in rendered_files(settings):
        for path, text in one.files.items():
            target = out / one.service / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            written.append(target)
    return written


def check(settings: Settings, out: Path) -> None:
    """Check what `write` wrote: crossplane, gixy, and `nginx -t` in the image that will run it."""
    for service in (LLM_EDGE, NGINX):
        directory = (out / service / EDGE_DIRECTORY.lstrip("/")).resolve()
        if directory.exists():
            _check(settings, directory, tls=settings.tls.on and service == NGINX)


def _check(settings: Settings, directory: Path, *, tls: bool) -> None:
    try:
        parsed = nginx_check.parse(directory)
        say(f"✓ crossplane parses {len(parsed)} nginx files")
        if findings := nginx_check.lint(directory):
            listed = "\n".join(f"  {one.severity} {one.plugin}: {one.summary}" for one in findings)
            raise KitError(
                f"gixy finds\n{listed}",
                "fix it, or add an exception with its reason to infra/edge/check.py",
            )
        say("✓ gixy finds nothing")
        image = _image(settings)
        if tls:
            # Docker needs a place to mount on.
            (directory / CERTIFICATE_FILE).parent.mkdir(exist_ok=True)
        nginx_check.accept(directory, image, EDGE_DIRECTORY, tls=tls)
        say(f"✓ nginx -t accepts it in {image.split('@')[0]}")
    except nginx_check.NginxError as problem:
        raise KitError(f"nginx would not start: {problem}", "the file has the path of its template") from None


def _image(settings: Settings) -> str:
    """Return the image that will run nginx, built first where it is built and not there yet."""
    name = images.reference("nginx", settings, settings.dify)
    if settings.images == "preloaded" and not image_guard.ids([name]):
        raise KitError(
            f"{name} is not in the engine, and dify:images preloaded uses no registry",
            f"`{hints.kit('images', 'load', 'dify-images.tar')}` loads an archive that `images save` made",
        )
    if settings.images != "local":
        return name
    known = subprocess.run(["docker", "image", "inspect", name], check=False, capture_output=True, timeout=30)
    if known.returncode != 0:
        directory = images.build_directory("nginx")
        base = f"{images.BASE_ARGUMENT}={images.base_name(settings)}"
        say(f"building {name} ...")
        subprocess.run(
            ["docker", "build", "--quiet", "--build-arg", base, "--tag", name, str(directory)],
            check=True,
            capture_output=True,
            timeout=BUILD_SECONDS,
        )
    return name
