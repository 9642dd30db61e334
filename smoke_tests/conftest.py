"""Finds the target, selects the tests that apply to it, and masks secrets in their reports.

Nothing here deploys, changes or destroys a stack. A missing stack fails the run; it never skips it.
"""

import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NoReturn

import pytest

from dify_kit.chromium import BrowserError, find_browser
from dify_kit.smoke.termination import terminable
from infra.catalogue.route_groups import SERVICE_API
from infra.catalogue.services import GATEWAY
from smoke_tests import tls
from smoke_tests.chat import Chat, cleaning_up
from smoke_tests.client import Client, Patience, VisitError
from smoke_tests.closed import console_closed
from smoke_tests.cors import cases
from smoke_tests.declarations import add_options
from smoke_tests.exports import TargetError
from smoke_tests.inside import Inside, Pods, inside_or_reason
from smoke_tests.knowledge import Knowledge, tidied
from smoke_tests.masking import Redactor
from smoke_tests.nodes import Nodes
from smoke_tests.oauth import TokenClient
from smoke_tests.options import NO_BROWSER, read_options
from smoke_tests.pages import Pages, browsing
from smoke_tests.recording import Recorder
from smoke_tests.reporting import choose_reports, note
from smoke_tests.resolve import resolving
from smoke_tests.results import by_reason, group_of
from smoke_tests.room import patience_for
from smoke_tests.run import RUN, Run
from smoke_tests.selection import left_out, part_of, place
from smoke_tests.target import OUTSIDERS, SANDBOXES, Deployment, Target, find_target
from smoke_tests.untested import leave_out

MARKERS = (
    "needs_stack: inspects the stack's services or exports, so it cannot run with --url",
    "needs_engine: inspects containers of a Docker engine, so the stack must be on one",
    "needs_cluster: inspects pods, Services and policies, so the stack must be on a cluster",
    "needs_shell: runs commands in services by testinfra, which needs kubectl for a stack on a cluster",
    "needs_edge: tests what the kit's edge adds, so that edge must be in front of Dify",
    "needs_policy: tests which origins may call, so they must be given or exported",
    "needs_key: calls an app, so it needs the app's API key",
    "needs_nodes: runs workflow nodes, so it needs the key of the app that contains them",
    "needs_knowledge: indexes a document, so it needs a key of the knowledge API",
    "needs_service(name): tests a service that not every release has",
    "needs_refusal(host): requests a private host through squid, so dify:ssrfAllowPrivate must not allow it",
    "needs_oauth: requests access tokens, so it needs an OAuth client",
    "needs_failures: sends wrong secrets as a client, so their limit must allow it",
    "needs_gateway: inspects the OAuth gateway, so it must run, for tokens or for the gate",
    "needs_llm: calls the LLM proxy, so it must be enabled",
    "needs_llm_key: calls the LLM proxy with a caller's key, so it needs one",
    "needs_llm_chat: sends a prompt to a model, which costs money",
    "needs_gate: tests the gate in front of the console, so it must be enabled",
    "needs_no_gate: calls the console through the edge without a session, so no gate may be in front of it",
    "needs_closed_schema: requests Dify's API schemas, so dify:apiSchema must not serve them",
    "needs_sockets: opens the console's sockets, so the release must have them",
    "needs_https: tests TLS, so the edge must terminate it",
    "needs_browser: opens pages in a Chromium",
    "needs_allowed_origin: opens a page that may call /v1, so another origin must be allowed",
    "needs_refused_origin: opens a page that may not call /v1, so some origin must be refused",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a smoke run."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Find the target before collection: tests are parametrised with its parts."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if config.option.help:
        return
    options = read_options(config, read_stdin=lambda: _read_stdin(config))
    run = Run(options=options, redact=Redactor())
    if options.key:
        run.redact.learn([options.key.reveal()])
    if options.oauth_secret:
        run.redact.learn([options.oauth_secret.reveal()])
    run.reports = choose_reports(config, options.reports, options.name)
    if options.llm_key:
        run.redact.learn([options.llm_key.reveal()])
    config.stash[RUN] = run
    config.pluginmanager.register(Recorder(run), "smoke-recorder")
    _choose_browser(run)
    config.add_cleanup(_entered(terminable()))
    config.add_cleanup(_entered(resolving(options.resolve)))
    try:
        run.target = find_target(options)
    except TargetError as problem:
        run.problem = str(problem)
    else:
        keys = (run.target.key, run.target.nodes_key, run.target.dataset_key)
        run.redact.learn(key.reveal() for key in keys if key)
        run.redact.learn([run.target.oauth.secret.reveal()] if run.target.oauth else [])


def _entered(context: AbstractContextManager[None]) -> Callable[[], None]:
    """Enter a context for the whole run; return what leaves it."""
    stack = ExitStack()
    stack.enter_context(context)
    return stack.close


def _choose_browser(run: Run) -> None:
    """Find the browser. Raises pytest.UsageError when the requested one is unusable."""
    given = run.options.browser
    if given == NO_BROWSER:
        run.no_browser = f"--browser {NO_BROWSER} was given"
        return
    try:
        run.browser = find_browser(given)
    except BrowserError as problem:
        if given:
            raise pytest.UsageError(f"--browser {given}: {problem}") from None
        run.no_browser = str(problem)


def _read_stdin(config: pytest.Config) -> str:
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    capture.suspend_global_capture(in_=True)
    try:
        return sys.stdin.read()
    finally:
        capture.resume_global_capture()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the target and the browser."""
    return [f"target: {config.stash[RUN].title}", f"browser: {config.stash[RUN].view}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each service, job and CORS case of the target."""
    target = metafunc.config.stash[RUN].target
    deployment = target.deployment if target else None
    every_case = [case for policy in target.policies for case in cases(policy)] if target else []
    values: dict[str, list[Any]] = {
        "service": sorted(deployment.containers) if deployment else [],
        "job": sorted(deployment.jobs) if deployment else [],
        "outsider": [one for one in OUTSIDERS if deployment and one in deployment.containers],
        "sandbox": [one for one in SANDBOXES if deployment and one in deployment.containers],
        "gateway": [GATEWAY] if deployment and GATEWAY in deployment.containers else [],
        "https_origin": list(target.https_origins) if target else [],
        "case": every_case,
        # Those that reach Dify: all on /v1, a few on the other groups.
        "sent_case": [
            case
            for case in every_case
            if case.policy.group == SERVICE_API or case.kind in {"allowed-1", "unrelated", "null"}
        ],
    }
    for name, found in values.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, found, ids=str)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot run against this target, and note the reasons. Runs after -k and -m."""
    run = config.stash[RUN]
    items.sort(key=place)
    reasons: dict[str, list[pytest.Item]] = {}
    for item in items:
        if reason := left_out(run, item):
            reasons.setdefault(reason, []).append(item)
    run.notes = [note(len(left), reason) for reason, left in reasons.items()]
    run.results.left_out = by_reason(
        {reason: [(group_of(part_of(one)), one.name) for one in left] for reason, left in reasons.items()}
    )
    if left := [item for group in reasons.values() for item in group]:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    if run.problem and not items:
        raise pytest.UsageError(run.problem)


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Target:
    """Return the target. Fails with the reason when there is none."""
    run = request.config.stash[RUN]
    if run.target is None:
        _give_up(request, run.problem)
    return run.target


def _give_up(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    """Fail this test and stop the run: every other test would fail for the same reason."""
    request.session.shouldfail = reason.splitlines()[0]
    pytest.fail(reason, pytrace=False)


@pytest.fixture(scope="session")
def deployment(target: Target) -> Deployment:
    """Return the stack's services and settings, for tests marked needs_stack."""
    assert target.deployment is not None
    return target.deployment


@pytest.fixture(scope="session")
def redact(request: pytest.FixtureRequest) -> Redactor:
    """Return the redactor of this run."""
    return request.config.stash[RUN].redact


@pytest.fixture(scope="session", autouse=True)
def _describe(request: pytest.FixtureRequest, record_testsuite_property: Any) -> None:  # noqa: ANN401  # pytest's
    """Add the target to the JUnit report."""
    run = request.config.stash[RUN]
    record_testsuite_property("target", run.title)
    record_testsuite_property("browser", run.view)
    for line in run.notes:
        record_testsuite_property("note", line)


@pytest.fixture(scope="session")
def inside(request: pytest.FixtureRequest, deployment: Deployment) -> Iterator[Inside]:
    """Yield the services of the stack from inside, on a Docker engine or on a cluster."""
    inside = inside_or_reason(deployment.stack, {**deployment.containers, **deployment.jobs})
    if isinstance(inside, str):
        _give_up(request, inside)
    yield inside
    inside.close()


@pytest.fixture(scope="session")
def pods(inside: Inside) -> Pods:
    """Return the services of a stack on a cluster, for tests marked needs_cluster."""
    assert isinstance(inside, Pods)
    return inside


@pytest.fixture(scope="session")
def patience(request: pytest.FixtureRequest) -> Patience:
    """Return the time that the run may wait for limits, shared by all tests."""
    run = request.config.stash[RUN]
    return Patience(seconds=patience_for(run.target, run.options.patience))


@pytest.fixture(scope="session")
def trust(request: pytest.FixtureRequest, target: Target) -> ssl.SSLContext:
    """Return the context that verifies the environment's certificates."""
    return tls.trust(target.ca, verify=request.config.stash[RUN].options.verify)


@pytest.fixture(scope="session")
def visitor(
    request: pytest.FixtureRequest,
    target: Target,
    redact: Redactor,
    patience: Patience,
    trust: ssl.SSLContext,
) -> Iterator[Client]:
    """Yield a client outside. The run stops here when the environment does not answer at all."""
    client = Client(
        key=target.key,
        redact=redact,
        patience=patience,
        direct=target.direct,
        verify=trust,
    )
    services = target.deployment
    stopped = _not_running(request.getfixturevalue("inside"), services) if services else ""
    problem = _silence(client, target)
    if problem:
        client.close()
        _give_up(request, f"{target.url} does not answer: {problem}{stopped}")
    yield client
    client.close()


def _silence(client: Client, target: Target) -> str:
    """Return why there is no answer at all; empty when there is one of any status."""
    try:
        client.once("GET", target.probe[0])
    except VisitError as problem:
        return str(problem)
    return ""


def _not_running(inside: Inside, deployment: Deployment) -> str:
    """Wait until no container is starting; return the state of those that do not run."""
    accounts = []
    for name in deployment.containers.values():
        try:
            container = inside.settled(name)
        except AssertionError as problem:
            accounts.append(str(problem))
        else:
            accounts += [] if container.status == "running" else [container.account]
    return "".join(f"\n{account}" for account in accounts)


@pytest.fixture(scope="session")
def _console(visitor: Client, target: Target) -> None:
    """Leave a test of the console out where dify:consoleAllowFrom does not list this machine."""
    if reason := console_closed(visitor, target.console_url, target.console_allow_from):
        leave_out(reason)


@pytest.fixture(scope="session")
def token_client(visitor: Client, target: Target, redact: Redactor) -> TokenClient:
    """Return an OAuth client, for tests marked needs_oauth."""
    assert target.oauth is not None
    return TokenClient(access=target.oauth, client=visitor, redact=redact)


@pytest.fixture(scope="session")
def canary(visitor: Client, target: Target) -> Iterator[Chat]:
    """Yield the canary app; conversations that a killed run left behind are deleted first."""
    with cleaning_up(Chat(client=visitor, url=target.service_url)) as chat:
        chat.delete_left_behind()
        assert not chat.delete_open()
        yield chat


@pytest.fixture
def chat(canary: Chat) -> Iterator[Chat]:
    """Yield the canary app; conversations of the test are deleted after it, also when it fails."""
    with cleaning_up(canary) as chat:
        yield chat


@pytest.fixture
def nodes(visitor: Client, target: Target) -> Nodes:
    """Return the app whose nodes run in other services, for tests marked needs_nodes."""
    assert target.nodes_key is not None
    return Nodes(client=visitor, url=target.service_url, key=target.nodes_key)


@pytest.fixture
def knowledge(request: pytest.FixtureRequest, visitor: Client, target: Target) -> Iterator[Knowledge]:
    """Yield the knowledge API, for tests marked needs_knowledge; what the test creates is deleted after it."""
    assert target.dataset_key is not None
    api = Knowledge(
        client=visitor,
        url=target.service_url,
        key=target.dataset_key,
        seconds=request.config.stash[RUN].options.indexing,
    )
    with tidied(api) as knowledge:
        yield knowledge


@pytest.fixture(scope="module")
def pages(
    request: pytest.FixtureRequest, target: Target, visitor: Client, redact: Redactor, patience: Patience
) -> Iterator[Pages]:
    """Yield a running browser. Depends on `visitor`, which stops the run when nothing answers at all."""
    assert visitor
    run = request.config.stash[RUN]
    assert run.browser is not None
    try:
        with browsing(
            run.browser,
            target.v1,
            redact=redact,
            patience=patience,
            # Chromium cannot be given an authority; test_tls verifies the certificate.
            verify=run.options.verify and not target.ca,
            resolve=target.resolve,
        ) as pages:
            yield pages
    except BrowserError as problem:
        pytest.fail(str(problem), pytrace=False)
