"""The definitions of the Gateway API, from the Go module that they are published in."""

import json
import os
import subprocess
from pathlib import Path

from dify_kit.setup.go_toolchain import find_go

MODULE, VERSION = "sigs.k8s.io/gateway-api", "v1.3.0"
SUM = "h1:q6okN+/UKDATola4JY7zXzx40WO4VISk7i9DIfOvr9M="
KINDS = ("gatewayclasses", "gateways", "httproutes")
GROUP = "gateway.networking.k8s.io"


def definitions() -> list[Path]:
    """Return the files with the definitions of the kinds, of the standard channel."""
    toolchain = find_go()
    done = subprocess.run(
        [str(toolchain.go), "mod", "download", "-json", f"{MODULE}@{VERSION}"],
        # Outside of every module, so that none is changed.
        cwd=toolchain.go.parent,
        env=toolchain.environment(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["Sum"] == SUM, found
    return [Path(found["Dir"]) / "config" / "crd" / "standard" / f"{GROUP}_{kind}.yaml" for kind in KINDS]
