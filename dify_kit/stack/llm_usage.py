"""What the running nginx counted of the LLM proxy: use by caller and model, and by upstream with its failures."""

import json
from collections.abc import Mapping
from typing import Any

from dify_kit.containers.docker_host import BROKEN
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.catalogue import ports
from infra.catalogue.services import LLM_EDGE, NGINX
from infra.engine import runtime
from infra.engine.runtime import Ran, Runtime

URL = f"http://127.0.0.1:{ports.EDGE_STATUS}/usage"
SECONDS = 10
ENGINE_SECONDS = 30
ASK_TIMES = 5


def document(files: StackFiles) -> dict[str, Any]:
    """Ask the running nginx. Raises KitError.

    `months`: month -> caller -> model -> numbers. `upstreams`: month -> upstream -> status -> failures.
    `served`: month -> upstream -> numbers.
    """
    return _read(asked(files, URL))


def counter(containers: Mapping[str, Any]) -> str:
    """Return what counts the LLM proxy of a stack, of its containers by service; empty where nothing is deployed."""
    return str(containers.get(LLM_EDGE) or containers.get(NGINX) or "")


def of_container(container: str, stack: str) -> dict[str, Any]:
    """Return `document` of the container that counts. Raises KitError."""
    return _read(answer_of(container, stack, URL))


def asked(files: StackFiles, *arguments: str) -> str:
    """Return what nginx answers to curl in its container. Raises KitError."""
    container = counter(Pulumi(files=files).state().outputs.get("containers") or {})
    if not container:
        raise KitError(
            f"stack {files.stack} is not deployed", f"`{hints.kit('up', stack=files.stack)}` deploys it"
        )
    return answer_of(container, files.stack, *arguments)


def _read(answer: str) -> dict[str, Any]:
    found = json.loads(answer)
    return {
        "months": dict(found["months"]),
        "upstreams": dict(found.get("upstreams") or {}),
        # An nginx of an earlier kit has none.
        "served": dict(found.get("served") or {}),
    }


def answer_of(container: str, stack: str, *arguments: str) -> str:
    """Return what the nginx of a container answers to curl inside of it. Raises KitError."""
    try:
        with runtime.runtime(container, ENGINE_SECONDS) as nginx:
            ran = _patiently(nginx, ["curl", "-fsS", "--max-time", str(SECONDS), *arguments])
    except BROKEN as problem:
        raise KitError(
            f"{container} cannot be asked: {problem}", f"`{hints.kit('doctor', stack=stack)}` checks it"
        ) from None
    if ran.code != 0:
        raise KitError(
            f"{container} counts nothing: {ran.output.strip()[-200:]}",
            f"`{hints.assign('llm.enabled', 'true', stack=stack)}` turns the proxy on, "
            f"`{hints.kit('up', stack=stack)}` deploys it",
        )
    return ran.output


def _patiently(nginx: Runtime, command: list[str]) -> Ran:
    # An engine under load now and then loses what a command printed, and tells its exit code all the same.
    for _ in range(ASK_TIMES):
        ran = nginx.run(command)
        if ran.code != 0 or ran.output:
            break
    return ran
