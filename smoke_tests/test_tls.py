"""TLS: a valid certificate that does not expire soon, no outdated versions, and a redirect from http to https."""

import ssl
from datetime import UTC, datetime

import pytest

from smoke_tests.client import Client
from smoke_tests.closed import edges_own
from smoke_tests.target import Deployment, Target
from smoke_tests.tls import answer_to_old_hello, served

DAYS_LEFT = 14
UNRELATED = "https://smoke-test.invalid"
PREFLIGHT = {"Origin": UNRELATED, "Access-Control-Request-Method": "POST"}

pytestmark = pytest.mark.needs_https


def test_the_certificate_is_trusted_for_its_host(https_origin: str, trust: ssl.SSLContext) -> None:
    assert served(https_origin, trust).version in {"TLSv1.2", "TLSv1.3"}


def test_the_certificate_lasts(https_origin: str, trust: ssl.SSLContext) -> None:
    expires = served(https_origin, trust).expires

    left = (expires - datetime.now(UTC)).days
    assert left >= DAYS_LEFT, (
        f"the certificate of {https_origin} expires on {expires:%Y-%m-%d}, in {left} days"
    )


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_outdated_tls_is_refused(https_origin: str, version: str) -> None:
    # The server accepts the same hello with a newer version.
    assert answer_to_old_hello(https_origin, "1.2") == "1.2"
    taken = answer_to_old_hello(https_origin, version)

    assert not taken, f"{https_origin} accepts TLS {taken}, which is outdated"


@pytest.mark.needs_engine
def test_http_redirects_to_https(target: Target, deployment: Deployment, visitor: Client) -> None:
    answer = visitor.ask("GET", f"{target.plain_url}/signin?a=b")

    if deployment.tls.redirect:
        assert answer.status == 308
        assert answer.header("location") == f"{target.url}/signin?a=b"
    else:
        # The console may be closed to this machine; the answer is the edge's own then, and no redirect either.
        closed = bool(target.console_allow_from) and edges_own(answer)
        assert closed or answer.status == 200, answer


@pytest.mark.needs_engine
def test_a_preflight_on_http_is_not_redirected(target: Target, visitor: Client) -> None:
    answer = visitor.once("OPTIONS", f"{target.plain_url}/v1/chat-messages", headers=PREFLIGHT)

    assert answer.status == 204
    assert answer.header("location") is None


@pytest.mark.needs_stack
def test_hsts_is_sent_exactly_when_it_was_asked_for(
    target: Target, deployment: Deployment, visitor: Client
) -> None:
    asked = [f"max-age={deployment.tls.hsts_seconds}"] if deployment.tls.hsts_seconds else []

    for path in ("/console/api/setup", "/v1/parameters", "/v1/smoke-test"):
        assert visitor.once("GET", target.url + path).values("strict-transport-security") == asked
    # On a cluster the Service of the edge decides at which port plain HTTP is reached.
    if deployment.on_engine:
        assert visitor.once("GET", f"{target.plain_url}/signin").values("strict-transport-security") == []
