"""Gets certificates by ACME and publishes them for nginx. Runs in certbot's container, with its Python.

`prepare` (as root, once): gives the volumes to the user of nginx and certbot, and publishes a self-signed
placeholder, so that nginx can start before the first real certificate.
`run`: asks certbot for what is missing or due, publishes it, sleeps, and starts over.
`check`: exits with 0 when a real certificate for every name is published and not near its end, with 3 right after
a failure that left things so, with 1 otherwise.
`renew`: asks for a new one now, due or not.

A published certificate is a directory of its own; `current` is a link that changes in one step. nginx's container
watches that link, so neither container needs the Docker socket.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

CERTBOT_SECONDS = 300
# Let's Encrypt counts five failed checks of a name in an hour.
FIRST_PAUSE, LONGEST_PAUSE = 120.0, 3600.0
JITTER = 0.1
PLACEHOLDER_DAYS = 7
# For this long a failure ends an `up` immediately. A later `up` waits for the next attempt.
FRESH_SECONDS = 20.0
HOPELESS = 3
# certbot renews at a third of the life; at a sixth something has been going wrong for long.
LAST_PART = 6
FACTS, CHAIN, KEY, CURRENT, PLACEHOLDER = "facts.json", "fullchain.pem", "key.pem", "current", "placeholder"


@dataclass(frozen=True)
class Place:
    """Paths, owners and the wanted certificate, from the environment of the container."""

    names: tuple[str, ...]
    email: str
    directory: str
    lineages: Path
    published: Path
    challenges: Path
    scratch: Path
    uid: int
    interval: float

    @property
    def lineage(self) -> str:
        """The name that certbot keeps it under. Each CA has its own: one of another would pass for not yet due."""
        return f"edge-{hashlib.sha256(self.directory.encode()).hexdigest()[:8]}"

    @property
    def failure(self) -> Path:
        """The file with the reason of the last failure; it is gone after a success."""
        return self.scratch / "failure"


def place(environ: Mapping[str, str]) -> Place:
    """Read the environment."""
    return Place(
        names=tuple(environ["KIT_NAMES"].split(",")),
        email=environ["KIT_EMAIL"],
        directory=environ["KIT_DIRECTORY"],
        lineages=Path(environ["KIT_LINEAGES"]),
        published=Path(environ["KIT_PUBLISHED"]),
        challenges=Path(environ["KIT_CHALLENGES"]),
        scratch=Path(environ["KIT_SCRATCH"]),
        uid=int(environ["KIT_UID"]),
        interval=float(environ["KIT_INTERVAL_SECONDS"]),
    )


def say(text: str) -> None:
    """Log a line."""
    sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}\n")
    sys.stdout.flush()


def facts_of(published: Path) -> dict[str, Any]:
    """Return what is known of the published certificate, empty without one."""
    try:
        found = json.loads((published / CURRENT / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def describe(chain: str, directory: str) -> dict[str, Any]:
    """Return what `check` needs to know of a chain, so that it need not parse one each time."""
    from cryptography import x509  # noqa: PLC0415  # a slow import, and `check` runs often

    leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {
        "directory": directory,
        "names": names.get_values_for_type(x509.DNSName),
        "from": leaf.not_valid_before_utc.timestamp(),
        "until": leaf.not_valid_after_utc.timestamp(),
    }


def publish(where: Place, name: str, chain: str, key: str, directory: str) -> None:
    """Write a certificate beside the published one, then let `current` point to it in one step.

    `directory` is the URL of the CA it comes from, empty when it comes from none.
    """
    draft, final = where.published / f".new-{name}", where.published / name
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o755)
    for file, text, mode in (
        (CHAIN, chain, 0o444),
        (KEY, key, 0o400),
        (FACTS, json.dumps(describe(chain, directory)), 0o444),
    ):
        (draft / file).touch(mode=0o600)
        (draft / file).write_text(text, encoding="utf-8")
        (draft / file).chmod(mode)
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    link = where.published / ".current"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    before = _target(where.published)
    link.rename(where.published / CURRENT)
    # The one before may be what a reload is reading at this moment.
    for old in where.published.iterdir():
        if old.is_dir() and not old.is_symlink() and old.name not in {name, before}:
            shutil.rmtree(old, ignore_errors=True)


def _target(published: Path) -> str:
    try:
        return (published / CURRENT).readlink().name
    except OSError:
        return ""


def make_placeholder(names: tuple[str, ...]) -> tuple[str, str]:
    """Return a self-signed placeholder and its key, both in PEM."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "waiting for a certificate")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=PLACEHOLDER_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), pem.decode()


def prepare(where: Place) -> int:
    """Make sure that nginx can start and that certbot may write."""
    if not facts_of(where.published):
        chain, key = make_placeholder(where.names)
        publish(where, PLACEHOLDER, chain, key, "")
        say("published a placeholder: no client trusts it, and the first certificate takes its place")
    for root in (where.lineages, where.published, where.challenges):
        for path in (root, *root.rglob("*")):
            os.chown(path, where.uid, where.uid, follow_symlinks=False)
    return 0


def certbot_command(where: Place, *, force: bool) -> list[str]:
    """Return the command that gets what is missing or due, and does nothing otherwise."""
    command = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--no-eff-email"]
    command += ["--email", where.email, "--server", where.directory]
    command += ["--webroot", "--webroot-path", str(where.challenges), "--preferred-challenges", "http"]
    command += ["--cert-name", where.lineage, "--key-type", "ecdsa", "--renew-with-new-domains"]
    command += ["--force-renewal"] if force else ["--keep-until-expiring"]
    command += [part for name in where.names for part in ("--domain", name)]
    command += ["--config-dir", str(where.lineages)]
    return [*command, "--work-dir", str(where.scratch / "work"), "--logs-dir", str(where.scratch / "logs")]


def attempt(where: Place, *, force: bool = False) -> bool:
    """Ask certbot once and publish what it has. Returns whether all went well; the reason is kept for `check`."""
    try:
        done = subprocess.run(
            certbot_command(where, force=force),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=CERTBOT_SECONDS,
        )
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        code, said = 1, f"certbot did not finish within {CERTBOT_SECONDS} s"
    lines = [line for line in said.splitlines() if line.strip() and not set(line) <= {"-", " "}]
    for line in lines:
        say(f"certbot: {line}")
    if code != 0:
        where.failure.parent.mkdir(parents=True, exist_ok=True)
        where.failure.write_text(reason_of(lines), encoding="utf-8")
        return False
    publish_lineage(where)
    where.failure.unlink(missing_ok=True)
    return True


def reason_of(lines: list[str]) -> str:
    """Return what matters of certbot's words: the CA's own detail, else the last line."""
    details = [line.strip() for line in lines if "Detail:" in line or "urn:ietf:params:acme" in line]
    return " ".join(details or lines[-1:])[:500] or "certbot said nothing"


def publish_lineage(where: Place) -> None:
    """Publish certbot's certificate when it is another one than the published."""
    live = where.lineages / "live" / where.lineage
    chain = (live / "fullchain.pem").read_text(encoding="utf-8")
    name = hashlib.sha256(chain.encode()).hexdigest()[:16]
    if _target(where.published) == name:
        return
    publish(where, name, chain, (live / "privkey.pem").read_text(encoding="utf-8"), where.directory)
    until = datetime.fromtimestamp(facts_of(where.published)["until"], UTC)
    say(f"published a certificate for {', '.join(where.names)}, valid until {until:%Y-%m-%d %H:%M} UTC")


def pauses(failures: int) -> float:
    """Return how long to wait after so many failures in a row, in seconds."""
    return min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE)


def run(where: Place) -> int:
    """Go on for ever: get, publish, sleep."""
    failures = 0
    while True:
        if attempt(where):
            failures, pause = 0, where.interval
        else:
            failures += 1
            pause = pauses(failures)
            say(
                f"no certificate; the next try is in {pause:.0f} s, or immediately after a restart of this container"
            )
        # Spread over the day, so that stacks do not renew at the same second.
        time.sleep(pause * (1 + JITTER * random.random()))  # noqa: S311  # no secret


def problem_of(where: Place, now: float) -> str:
    """Return what is wrong with the published certificate, empty when nothing is."""
    facts = facts_of(where.published)
    last = ""
    with contextlib.suppress(OSError):
        last = f"; {where.failure.read_text(encoding='utf-8')}"
    if not facts or facts["directory"] != where.directory:
        return f"no certificate of {where.directory} yet{last}"
    if missing := [name for name in where.names if name not in facts["names"]]:
        return f"the certificate does not name {', '.join(missing)} yet{last}"
    if facts["until"] - now < (facts["until"] - facts["from"]) / LAST_PART:
        until = datetime.fromtimestamp(facts["until"], UTC)
        return f"the certificate ends on {until:%Y-%m-%d %H:%M} UTC and was not renewed{last}"
    return ""


def check(where: Place) -> int:
    """Say what is wrong, if anything is."""
    now = time.time()
    problem = problem_of(where, now)
    sys.stdout.write(f"{problem or 'a certificate is published'}\n")
    if not problem:
        return 0
    with contextlib.suppress(OSError):
        return HOPELESS if now - where.failure.stat().st_mtime < FRESH_SECONDS else 1
    return 1


def renew(where: Place) -> int:
    """Get a new certificate now."""
    return 0 if attempt(where, force=True) else 1


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> int:
    """Do what the argument names."""
    # As PID 1 of the container it ignores the signal otherwise.
    signal.signal(signal.SIGTERM, _stop)
    commands = {"prepare": prepare, "run": run, "check": check, "renew": renew}
    return commands[sys.argv[1]](place(os.environ))


if __name__ == "__main__":
    sys.exit(main())
