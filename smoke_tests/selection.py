"""Which tests a run selects, in which order, and why it leaves the others out."""

import pytest

from infra.catalogue.services import GATEWAY
from smoke_tests.engine import Engine
from smoke_tests.exports import TargetError
from smoke_tests.inside import no_shell
from smoke_tests.options import LLM_KEY_VARIABLE, OTHER
from smoke_tests.pages import allowed_origin, refused_origin
from smoke_tests.room import no_room
from smoke_tests.run import Run
from smoke_tests.target import Deployment, Target

# Tests whose failures explain others come first.
ORDER = (
    *("services", "exposure", "tls", "target", "edge", "console", "gate"),
    *("authentication", "chat", "parts", "oauth", "llm", "cors", "browser", "limits"),
)


# Those that a run sends as the client whose tokens it needs.
WRONG_SECRETS = 2
ANSWERS = "test_the_environment_answers"
NO_STACK = "they inspect the stack's services or exports, which --url does not give"


def place(item: pytest.Item) -> int:
    """Return the place of a test in the order of the run."""
    part = part_of(item)
    return ORDER.index(part) if part in ORDER else len(ORDER)


def part_of(item: pytest.Item) -> str:
    """Return the topic of a test: the name of its file without `test_`."""
    return item.path.stem.removeprefix("test_")


def left_out(run: Run, item: pytest.Item) -> str:
    """Return why a test is not selected; empty when it is."""
    if run.target is None:
        return "" if item.name == ANSWERS else "the target was not found"
    reasons = {
        "needs_stack": "" if run.target.deployment else NO_STACK,
        "needs_engine": _no_engine(run.target),
        "needs_cluster": _no_cluster(run.target),
        "needs_shell": no_shell(run.target.deployment.containers) if run.target.deployment else NO_STACK,
        "needs_edge": ""
        if run.target.kit_edge
        else f"they test what the kit's edge adds, and --edge {OTHER} was given",
        "needs_policy": ""
        if run.target.kit_edge or run.options.allowed_origins
        else f"they test which origins may call, and --edge {OTHER} was given without --allowed-origin",
        "needs_https": ""
        if run.target.https_origins
        else "they test TLS, which the edge does not terminate here (dify:tls is off)",
        "needs_key": ""
        if run.target.key
        else "they call an app, and the stack has no canary (dify:canary is false): give --api-key-file",
        "needs_nodes": "" if run.target.nodes_key else _no_nodes(run),
        "needs_knowledge": "" if run.target.dataset_key else _no_knowledge(run),
        "needs_service": _no_service(run.target, item),
        "needs_refusal": _no_refusal(run.target, item),
        "needs_oauth": "" if run.target.oauth else _no_client(run.target),
        "needs_failures": _no_failures(run.target),
        "needs_gateway": ""
        if run.target.deployment and GATEWAY in run.target.deployment.containers
        else "they inspect the OAuth gateway, which does not run here (dify:oauth and dify:oidcGate are off)",
        "needs_llm": "" if run.target.llm else _no_proxy(run),
        "needs_gate": "" if run.target.gate else _no_gate(run),
        "needs_no_gate": "they call the console without a session, and it is behind the gate here (dify:oidcGate)"
        if run.target.gate
        else "",
        "needs_closed_schema": "Dify's API schemas are served here by setting (dify:apiSchema)"
        if run.target.api_schema
        else "",
        "needs_sockets": "they open the console's sockets, which this release does not have"
        if run.target.has_sockets is False
        else "",
        "needs_llm_key": ""
        if run.options.llm_key
        else f"they call the LLM proxy with a caller's key: set {LLM_KEY_VARIABLE}, or give --llm-key-file",
        "needs_llm_chat": ""
        if run.options.llm_chat
        else "they send a prompt to a model, which costs money: give --llm-chat NAME",
        "needs_browser": "" if run.browser else f"they need a browser: {run.no_browser}",
        "needs_allowed_origin": ""
        if allowed_origin(run.target.v1)
        else f"no origin but the API's own may call /v1 from a browser ({_origins_setting(run)})",
        "needs_refused_origin": ""
        if refused_origin(run.target.v1)
        else f"every origin may call /v1 from a browser, so none is refused ({_origins_setting(run)})",
    }
    why = next((why for marker, why in reasons.items() if why and item.get_closest_marker(marker)), "")
    # Of the CORS tests, those with a key send it as often as the chat does.
    part = "chat" if item.get_closest_marker("needs_key") else part_of(item)
    return why or no_room(run.target, part, run.options.patience)


def _no_engine(target: Target) -> str:
    if target.deployment is None:
        return NO_STACK
    if target.deployment.on_engine:
        return ""
    return (
        "they inspect containers of a Docker engine, and the stack is on a cluster (dify:platform kubernetes)"
    )


def _no_cluster(target: Target) -> str:
    if target.deployment is None:
        return NO_STACK
    return "they inspect pods, and the stack is on a Docker engine" if target.deployment.on_engine else ""


def _no_failures(target: Target) -> str:
    """Return why a client may not send as many wrong secrets as a run does; empty when it may."""
    allowed = target.deployment.rate_limits.failures if target.deployment else None
    if allowed is None or allowed > WRONG_SECRETS:
        return ""
    return (
        f"they send {WRONG_SECRETS} wrong secrets, and after {allowed} the client would be refused "
        "(dify:oauth.limits.failures)"
    )


def _no_nodes(run: Run) -> str:
    reason = "--url names none" if run.options.url else "the stack has none (dify:canary is false)"
    return f"they run workflow nodes of the canary-nodes app, and {reason}: give --nodes-key-file"


def _no_knowledge(run: Run) -> str:
    reason = (
        "--url names none"
        if run.options.url
        else "the stack has none (dify:canary or dify:canaryKnowledge is false)"
    )
    return f"they index a document with a key of the knowledge API, and {reason}: give --dataset-key-file"


def _no_service(target: Target, item: pytest.Item) -> str:
    """Return why the service of a test is missing, empty when it is not. With --url, every service is assumed."""
    marker = item.get_closest_marker("needs_service")
    if marker is None or target.deployment is None or marker.args[0] in target.deployment.containers:
        return ""
    return f"they test {marker.args[0]}, which Dify {target.deployment.release} does not have"


def _no_refusal(target: Target, item: pytest.Item) -> str:
    """Return why squid allows the host of a test, empty when it does not. With --url, no host is allowed."""
    marker, deployment = item.get_closest_marker("needs_refusal"), target.deployment
    if marker is None or deployment is None or not deployment.ssrf_allow_private:
        return ""
    host = str(marker.args[0])
    opened = deployment.opened_by([host, *_addresses(deployment, host)])
    return (
        f"they request {host} through squid, which dify:ssrfAllowPrivate ({opened}) allows here"
        if opened
        else ""
    )


def _addresses(deployment: Deployment, service: str) -> list[str]:
    """Return the addresses of a service's container; none when the engine is unreachable."""
    if service not in deployment.containers or not deployment.on_engine:
        return []
    engine = engine_or_reason(deployment.stack)
    if isinstance(engine, str):
        return []
    try:
        found = engine.container(deployment.containers[service]).networks.values()
    except AssertionError:
        return []
    finally:
        engine.close()
    return [address for address in found if address]


def _no_proxy(run: Run) -> str:
    reason = "--url names no model: give --llm-model" if run.options.url else "it is off (dify:llm.enabled)"
    return f"they call the LLM proxy, and {reason}"


def _no_gate(run: Run) -> str:
    reason = "--url was given without --gated" if run.options.url else "it is off (dify:oidcGate.enabled)"
    return f"they test the gate in front of the console, and {reason}"


def _no_client(target: Target) -> str:
    reason = {
        None: "--url names none",
        True: "the stack has no canary (dify:canary is false)",
        False: "OAuth is off (dify:oauth.enabled)",
    }[target.verifies_tokens]
    fix = "" if target.verifies_tokens is False else ": give --oauth-client"
    return f"they request access tokens as an OAuth client, and {reason}{fix}"


def _origins_setting(run: Run) -> str:
    return "--allowed-origin" if run.options.url else "dify:cors of the stack"


def engine_or_reason(stack: str) -> Engine | str:
    """Return the engine of a stack, or why it cannot be used."""
    try:
        return Engine(stack)
    except TargetError as problem:
        return str(problem)
