"""The wait for a certificate of cert-manager: what ends it, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from infra.engine.cluster import ClusterError
from infra.resources import certificate_ready
from infra.resources.certificate_ready import CertificateError, CertificateReadyProvider, Wait
from infra.resources.certificate_state import OF_CERTIFICATE, issued
from tests.unit.test_workload_ready import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(certificate_ready, "time", clock)
    return clock


def a_condition(kind: str, status: str, reason: str, message: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, **more}


def a_certificate(
    *conditions: dict[str, Any], revision: int | None = None, generation: int = 2
) -> dict[str, Any]:
    return {
        "metadata": {"name": "edge", "namespace": "dify-unit", "generation": generation},
        "spec": {"secretName": "edge-certificate"},
        "status": {"conditions": list(conditions), **({"revision": revision} if revision else {})},
    }


def ready(status: str, *, observed: int = 2) -> dict[str, Any]:
    return a_condition("Ready", status, "Ready", "Certificate is up to date", observedGeneration=observed)


ISSUING = a_condition("Issuing", "True", "DoesNotExist", "Issuing certificate as Secret does not exist")


def owned(name: str, owner: str, made: str = "2026-11-30T10:00:00Z", **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "creationTimestamp": made, "ownerReferences": [{"name": owner}]}
    return {"metadata": metadata, **fields}


def a_request(name: str, made: str, *conditions: dict[str, Any], of: str = "edge") -> dict[str, Any]:
    metadata = {"name": name, "creationTimestamp": made, "annotations": {OF_CERTIFICATE: of}}
    return {"metadata": metadata, "status": {"conditions": list(conditions)}}


@dataclass
class Seen:
    """A cluster of which a test changes what it shows, by the seconds that passed."""

    clock: Clock
    certificates: Callable[[float], dict[str, Any] | None]
    secret: Callable[[float], bool] = lambda _: True
    objects: dict[str, list[Any]] = field(default_factory=dict)

    def certificate(self) -> Any:
        return self.certificates(self.clock.passed)

    def listed(self, group: str, resource: str) -> list[Any]:
        del group
        return self.objects.get(resource, [])

    def has_secret(self) -> bool:
        return self.secret(self.clock.passed)


def wait(seen: Seen, *, whole: bool = True, timeout: float = 100) -> list[str]:
    said: list[str] = []
    Wait(seen, whole=whole, timeout=timeout, say=said.append).run()
    return said


@pytest.mark.parametrize(
    ("found", "there"),
    [
        (a_certificate(ready("True"), revision=1), True),
        (a_certificate(ready("False"), revision=1), False),
        # Of the names and the issuer before.
        (a_certificate(ready("True", observed=1), revision=1), False),
        # The one that cert-manager signs by itself until it has another one.
        (a_certificate(ready("True")), False),
        (a_certificate(), False),
    ],
)
def test_a_certificate_is_issued(found: dict[str, Any], there: bool) -> None:
    assert issued(found) is there


def test_the_wait_ends_with_the_certificate_of_the_issuer(clock: Clock) -> None:
    def found(passed: float) -> dict[str, Any]:
        return a_certificate(ready("True"), revision=1) if passed >= 25 else a_certificate(ISSUING)

    said = wait(Seen(clock, found))

    assert clock.passed == 25
    assert len(said) == 2
    assert "Issuing certificate as Secret does not exist" in said[0]


def test_nginx_waits_for_the_secret_alone(clock: Clock) -> None:
    wait(Seen(clock, lambda _: a_certificate(ISSUING), secret=lambda passed: passed >= 3), whole=False)

    assert clock.passed == 3


def test_a_wait_without_end_shows_every_object_on_the_way(clock: Clock) -> None:
    waiting = "Waiting for HTTP-01 challenge propagation: wrong status code '404', expected '200'"
    objects = {
        "certificaterequests": [
            a_request(
                "edge-1", "2026-11-30T09:00:00Z", a_condition("Ready", "False", "Failed", "an older one")
            ),
            a_request(
                "edge-2", "2026-11-30T10:00:00Z", a_condition("Ready", "False", "Pending", "created Order")
            ),
            a_request("other-1", "2026-11-30T11:00:00Z", of="other"),
        ],
        "orders": [owned("edge-2-7", "edge-2", status={"state": "pending"}), owned("other-1-7", "other-1")],
        "challenges": [
            owned(
                "edge-2-7-1",
                "edge-2-7",
                spec={"dnsName": "dify.example.com"},
                status={"state": "pending", "reason": waiting},
            ),
            owned("other-1-7-1", "other-1-7"),
        ],
    }

    with pytest.raises(CertificateError) as failed:
        wait(Seen(clock, lambda _: a_certificate(ISSUING), objects=objects))

    assert clock.passed == 100
    assert str(failed.value).splitlines() == [
        "certificate: no certificate of the issuer within 100 s",
        "Certificate edge: Issuing=True, DoesNotExist: Issuing certificate as Secret does not exist",
        "CertificateRequest edge-2: Ready=False, Pending: created Order",
        "Order edge-2-7: pending",
        f"Challenge edge-2-7-1 for dify.example.com: pending: {waiting}",
    ]


@pytest.mark.parametrize(
    "why",
    [
        a_condition("Ready", "False", "Failed", "the order is invalid: unauthorized"),
        a_condition("Ready", "False", "Denied", "the request was denied"),
        a_condition("InvalidRequest", "True", "Policy", "the role has another type of key"),
    ],
)
def test_a_refusal_ends_the_wait(clock: Clock, why: dict[str, Any]) -> None:
    objects = {"certificaterequests": [a_request("edge-1", "2026-11-30T10:00:00Z", why)]}

    with pytest.raises(CertificateError) as failed:
        wait(Seen(clock, lambda _: a_certificate(), objects=objects))

    assert clock.passed == 0
    assert str(why["message"]) in str(failed.value)
    assert "`cmctl renew edge --namespace dify-unit`" in str(failed.value)


def test_a_refusal_of_before_does_not_end_the_wait_of_a_new_try(clock: Clock) -> None:
    why = a_condition("Ready", "False", "Failed", "the order is invalid")
    objects = {"certificaterequests": [a_request("edge-1", "2026-11-30T10:00:00Z", why)]}

    def found(passed: float) -> dict[str, Any]:
        return a_certificate(ready("True"), revision=1) if passed >= 5 else a_certificate(ISSUING)

    wait(Seen(clock, found, objects=objects))

    assert clock.passed == 5


def test_silence_of_cert_manager_is_told(clock: Clock) -> None:
    with pytest.raises(CertificateError, match="do its pods run"):
        wait(Seen(clock, lambda _: a_certificate(), secret=lambda _: False), whole=False)


def test_a_certificate_that_is_gone_ends_the_wait(clock: Clock) -> None:
    with pytest.raises(CertificateError, match="gone from the cluster"):
        wait(Seen(clock, lambda _: None))

    assert clock.passed == pytest.approx(certificate_ready.GONE_SECONDS, abs=1)


@pytest.mark.parametrize("silent", [True, False])
def test_a_cluster_that_answers_again_is_asked_again(clock: Clock, silent: bool) -> None:
    def found(passed: float) -> dict[str, Any] | None:
        if passed < 5 and silent:
            raise ClusterError("no answer", "wait")
        return None if passed < 5 else a_certificate(ready("True"), revision=1)

    wait(Seen(clock, found))

    assert clock.passed == 5


def test_a_cluster_that_stays_silent_ends_the_wait(clock: Clock) -> None:
    def found(_: float) -> dict[str, Any]:
        raise ClusterError("no answer", "wait")

    with pytest.raises(ClusterError):
        wait(Seen(clock, found), timeout=1000)

    assert clock.passed == pytest.approx(certificate_ready.SILENCE_SECONDS, abs=1)


PROPS = {
    "certificate": "kubernetes://a/b/Certificate/edge?kubeconfig=c",
    "uid": "u",
    "generation": 1.0,
    "whole": True,
}


@pytest.mark.parametrize(
    ("news", "changes"),
    [({}, False), ({"generation": 2.0}, True), ({"uid": "v"}, True), ({"certificate": "x"}, True)],
)
def test_another_certificate_is_waited_for(news: dict[str, Any], changes: bool) -> None:
    assert CertificateReadyProvider().diff("id", PROPS, {**PROPS, **news}).changes is changes
