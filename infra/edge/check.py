"""Checks of rendered nginx files: they parse, gixy finds nothing new, and nginx itself accepts them."""

import json
import posixpath
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import crossplane

from infra.edge.paths import KEY_FILE, PUBLISHED, RUN_DIRECTORY
from infra.edge.tls import SECRET_CERTIFICATE, SECRET_KEY
from infra.settings import certificates, selfsigned

NGINX_SECONDS = 60
GIXY_SECONDS = 60

# Findings of gixy that are intended, each with the reason. Any other finding is a failure.
GIXY_EXCEPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "host_spoofing": (
            "Dify builds links from the Host header with its port, which $host lacks; requests for other hosts than "
            "server_name reach the default server, which closes them with 444"
        ),
        "hsts_header": (
            "HSTS is sent only when dify:tls.hstsSeconds is set: browsers keep it for that long, and could not reach "
            "the stack after TLS is turned off"
        ),
    }
)

# Findings that are intended in exactly these directives, as gixy prints them. In any other one they are failures.
GIXY_DIRECTIVES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        # The key is looked up in a table of the kit, and settings allow only printable ASCII in it. $llm_start ends the
        # headers and starts the body; njs/edits.js builds it and its length from tables of the kit.
        "http_splitting": frozenset(
            {
                "proxy_set_header Authorization Bearer $llm_key;",
                "proxy_set_header Content-Type $llm_start;",
                "proxy_set_header Content-Length $llm_length;",
            }
        ),
        # That api is starting is public, also to clients that may not reach the console.
        "return_bypasses_allow_deny": frozenset({"return 503;"}),
        # The name of an upstream, whose servers stay where they are.
        "missing_resolver": frozenset({"proxy_pass http://$ring_to;", "proxy_pass http://$llm_owner;"}),
    }
)

# Patterns that PCRE supports and gixy's parser does not. Only njs reads their results.
GIXY_BLIND = ("http/llm_body.conf", "parts/llm_long.conf")


class NginxError(Exception):
    """The rendered configuration is invalid. The message names the file and the line."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A finding of gixy: the check's name, its severity and a summary."""

    plugin: str
    severity: str
    summary: str


def parse(directory: Path) -> list[dict[str, object]]:
    """Parse the configuration below `directory` with crossplane; return its files. Raises NginxError."""
    # crossplane does not know every directive of stream and njs, so it does not check contexts.
    payload = crossplane.parse(
        str(directory / "nginx.conf"), check_ctx=False, check_args=False, comments=False, combine=False
    )
    errors = [
        error
        for error in payload["errors"]
        if "/etc/nginx/" not in error["error"] and "No such file" not in error["error"]
    ]
    if errors:
        first = errors[0]
        where = str(first["file"]).removeprefix(f"{directory}/")
        raise NginxError(f"{where}, line {first['line']}: {first['error']}")
    return list(payload["config"])


def lint(directory: Path) -> list[Finding]:
    """Return the findings of gixy that no exception covers. Raises NginxError when gixy itself fails."""
    gixy = Path(sys.executable).with_name("gixy")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "nginx"
        shutil.copytree(directory, copy)
        for blind in GIXY_BLIND:
            if (copy / blind).exists():
                (copy / blind).write_text("", encoding="utf-8")
        done = subprocess.run(
            [str(gixy), "--format", "json", str(copy / "nginx.conf")],
            check=False,
            capture_output=True,
            text=True,
            timeout=GIXY_SECONDS,
        )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise NginxError(f"gixy failed: {done.stderr.strip()[-300:]}") from None
    return [
        Finding(plugin=issue["plugin"], severity=issue["severity"], summary=issue["summary"])
        for issue in found
        if issue["plugin"] not in GIXY_EXCEPTIONS and not _meant(issue)
    ]


def _meant(issue: Mapping[str, str]) -> bool:
    """Tell whether a finding concerns excepted directives only."""
    lines = {line.strip() for line in issue["config"].splitlines()}
    found = {line for line in lines if line.startswith(("proxy_", "add_header", "return", "rewrite"))}
    return bool(found) and found <= GIXY_DIRECTIVES.get(issue["plugin"], frozenset())


def accept(directory: Path, image: str, destination: str, *, tls: bool = False) -> None:
    """Run `nginx -t` on the files in the image that will run them. Raises NginxError with its message.

    `tls`: the files refer to a certificate and its key. A temporary pair replaces them, so no key is written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        extra = _stand_in_certificates(Path(scratch), destination) if tls else []
        _accept(directory, image, destination, extra)


def _stand_in_certificates(scratch: Path, destination: str) -> list[str]:
    made = selfsigned.issue(secrets.token_hex(32), "check", ["localhost"], certificates.now_utc())
    (scratch / "current").mkdir()
    for chain, key in (
        ("fullchain.pem", "key.pem"),
        ("current/fullchain.pem", "current/key.pem"),
        (SECRET_CERTIFICATE, SECRET_KEY),
    ):
        (scratch / chain).write_text(made.certificate.chain, encoding="utf-8")
        (scratch / key).write_text(made.key, encoding="utf-8")
    # Readable, because nginx runs as another user. The pair is used for this check alone.
    scratch.chmod(0o755)
    places = (f"{destination}/{posixpath.dirname(KEY_FILE)}", PUBLISHED)
    return [part for place in places for part in ("--volume", f"{scratch}:{place}:ro")]


def _accept(directory: Path, image: str, destination: str, extra: list[str]) -> None:
    command = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--read-only",
        "--user",
        "101",
        "--cap-drop",
        "ALL",
    ]
    command += ["--tmpfs", f"{RUN_DIRECTORY}:uid=101,mode=0700", "--tmpfs", "/tmp", "--entrypoint", "nginx"]  # noqa: S108  # the container's own
    command += ["--volume", f"{directory}:{destination}:ro", *extra, image]
    command += ["-e", "stderr", "-t", "-c", f"{destination}/nginx.conf"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=NGINX_SECONDS)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if "[emerg]" in line or "[error]" in line]
        raise NginxError((said[0] if said else done.stderr.strip()).replace(f"{destination}/", ""))
