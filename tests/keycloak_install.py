"""Keycloak for the tests, from Maven: fetched and built once for each version, kept in the user's cache."""

import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from dify_kit.setup.commands import cache_directory, run_step

VERSION = "26.0.7"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
# In memory: every start is a new one. What the tests do not use would only take time to start.
BUILD = (
    "--db=dev-mem",
    "--features-disabled=authorization,device-flow,ciba,kerberos,par,impersonation,web-authn,step-up-authentication",
)
# The small ones of Java: they are quicker for a server that lives for minutes.
JAVA_OPTIONS = (
    "-Xms64m -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError "
    "-Dfile.encoding=UTF-8"
)
FETCH_SECONDS, BUILD_SECONDS = 600, 300
HINT = "run `make integration-tools` once; it installs Java and Maven, and needs Maven's registry"


def environment() -> dict[str, str]:
    """Return the environment in which Keycloak's own script runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KC_", "JAVA_OPTS"))}
    return kept | {"JAVA_OPTS": JAVA_OPTIONS}


def keycloak_directory() -> Path:
    """Return the directory of the built Keycloak; make it when it is not there yet. Raises KitError."""
    digest = hashlib.sha256(" ".join(BUILD).encode()).hexdigest()[:8]
    target = cache_directory() / f"keycloak-{VERSION}-{digest}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as name:
        scratch = Path(name)
        run_step(
            f"fetching Keycloak {VERSION}",
            [
                # A repository of its own: nothing else will ask for what weighs this much.
                *("mvn", "--batch-mode", "--quiet", "--strict-checksums", f"-Dmaven.repo.local={scratch}/m2"),
                *("dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={scratch}"),
            ],
            hint=HINT,
            seconds=FETCH_SECONDS,
        )
        (archive,) = scratch.glob("*.zip")
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(scratch / "unpacked")
        (unpacked,) = (scratch / "unpacked").iterdir()
        run_step(
            "building Keycloak",
            ["bash", str(unpacked / "bin" / "kc.sh"), "build", *BUILD],
            hint=HINT,
            seconds=BUILD_SECONDS,
            env=environment(),
        )
        try:
            unpacked.rename(target)
        except OSError:
            # Another run was quicker; what it made is the same.
            if not target.is_dir():
                raise
            shutil.rmtree(unpacked)
    return target
