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
from infra.settings import certificates, selfsigned

NGINX_SECONDS = 60
GIXY_SECONDS = 60

# What gixy finds and we mean, each with the reason. Anything else is a failure.
GIXY_EXCEPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "host_spoofing": (
            "Dify builds links from the Host header, port included, which $host would lose; other hosts than "
            "server_name never get here, they end in the default server with 444"
        ),
        "hsts_header": (
            "HSTS is sent only when dify:tls.hstsSeconds asks for it: browsers remember it for that long, and "
            "would not come back to a stack that gives TLS up"
        ),
    }
)

# And what it may find in exactly these directives, as it prints them; in another one it is a failure.
GIXY_DIRECTIVES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        # The key comes from a table of our own, by an exact look-up, and settings let only printable ASCII in.
        # The end of the header is the beginning of a body there, made by njs/llm.js of our own tables, and its length.
        "http_splitting": frozenset(
            {
                "proxy_set_header Authorization Bearer $llm_key;",
                "proxy_set_header Content-Type $llm_start;",
                "proxy_set_header Content-Length $llm_length;",
            }
        ),
        # That api starts is no secret from those who may not reach its console.
        "return_bypasses_allow_deny": frozenset({"return 503;"}),
    }
)

# Patterns that PCRE knows and gixy's parser does not. Nothing but njs reads what they find.
GIXY_BLIND = "http/llm_body.conf"


class NginxError(Exception):
    """The rendered configuration is not fit to run. The message names file and line."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something gixy found: its name, how bad it is, and where."""

    plugin: str
    severity: str
    summary: str


def parse(directory: Path) -> list[dict[str, object]]:
    """Parse the configuration below `directory` with crossplane; return its files. Raises NginxError."""
    # crossplane's tables know neither every stream directive nor njs, so contexts are not checked by it.
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
    """Return what gixy finds and no exception covers. Raises NginxError when gixy itself fails."""
    gixy = Path(sys.executable).with_name("gixy")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "nginx"
        shutil.copytree(directory, copy)
        (copy / GIXY_BLIND).unlink(missing_ok=True)
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
    """Whether a finding is about nothing but directives that are excepted."""
    lines = {line.strip() for line in issue["config"].splitlines()}
    found = {line for line in lines if line.startswith(("proxy_", "add_header", "return", "rewrite"))}
    return bool(found) and found <= GIXY_DIRECTIVES.get(issue["plugin"], frozenset())


def accept(directory: Path, image: str, destination: str, *, tls: bool = False) -> None:
    """Run `nginx -t` on the files in the image that will run them. Raises NginxError with its words.

    `tls`: they name a certificate and its key. Others take their place, so that no key has to be written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        extra = _stand_in_certificates(Path(scratch), destination) if tls else []
        _accept(directory, image, destination, extra)


def _stand_in_certificates(scratch: Path, destination: str) -> list[str]:
    made = selfsigned.issue(secrets.token_hex(32), "check", ["localhost"], certificates.now_utc())
    (scratch / "fullchain.pem").write_text(made.certificate.chain, encoding="utf-8")
    (scratch / "key.pem").write_text(made.key, encoding="utf-8")
    # nginx runs as another user; the pair is good for nothing but this check.
    scratch.chmod(0o755)
    places = (f"{destination}/{posixpath.dirname(KEY_FILE)}", f"{PUBLISHED}/current")
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
