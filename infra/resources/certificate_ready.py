"""The certificate of cert-manager as a resource: `up` waits for it, and says why it does not come."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pulumi
from pulumi import dynamic

from infra.resources.certificate_state import OF_CERTIFICATE, Plain, failed, issued, told

POLL_SECONDS = 1.0
REPORT_EVERY_SECONDS = 10.0
# cert-manager writes one that it signs by itself within seconds.
SECRET_SECONDS = 60
# A CA that checks names by HTTP takes seconds, one that checks DNS as long as its records need.
ISSUED_SECONDS = 300
# A busy API server misses a request now and then.
SILENCE_SECONDS = 60.0
GONE_SECONDS = 10.0


class CertificateError(Exception):
    """There is no certificate. The message has the state of the objects of cert-manager."""


class Look(Protocol):
    """A certificate as the cluster shows it."""

    def certificate(self) -> Plain | None:
        """Return the Certificate; None when it is gone."""

    def listed(self, group: str, resource: str) -> list[Plain]:
        """Return the objects of a kind in the namespace; none where the user may not read them."""

    def has_secret(self) -> bool:
        """Tell whether the Secret with certificate and key exists."""


class ClusterLook:
    """A certificate of a cluster; `reference` is `infra.engine.cluster.Workload` as text."""

    def __init__(self, reference: str) -> None:
        from pathlib import Path  # noqa: PLC0415  # kept out of the pickled provider

        from infra.engine.cluster import Workload  # noqa: PLC0415
        from infra.engine.cluster_view import ClusterView  # noqa: PLC0415

        self._at = Workload.parse(reference)
        self._view = ClusterView.of(Path(self._at.kubeconfig), self._at.context)

    def _path(self, group: str, resource: str) -> str:
        return f"/apis/{group}/v1/namespaces/{self._at.namespace}/{resource}"

    def certificate(self) -> Plain | None:
        """See Look."""
        return self._view.look(f"{self._path('cert-manager.io', 'certificates')}/{self._at.name}")

    def listed(self, group: str, resource: str) -> list[Plain]:
        """See Look."""
        found = self._view.look(self._path(group, resource)) or {}
        return list(found.get("items") or [])

    def has_secret(self) -> bool:
        """See Look."""
        certificate = self.certificate() or {"spec": {}}
        name = str(certificate["spec"].get("secretName") or "")
        return bool(name) and self._view.secret_type(self._at.namespace, name) == "kubernetes.io/tls"


class Wait:
    """The wait for one certificate: for its Secret, or with `whole` for the certificate of the issuer in it."""

    def __init__(self, look: Look, *, whole: bool, timeout: float, say: Callable[[str], None]) -> None:
        self._look = look
        self._whole = whole
        self._timeout = timeout
        self._say = say
        # Since when the cluster does not answer, and shows no Certificate.
        self._silent: float | None = None
        self._gone: float | None = None

    def run(self) -> None:
        """Return when the certificate is there. Raises CertificateError, and ClusterError of a silent cluster."""
        began = reported = time.monotonic()
        while not self._answered():
            waited = time.monotonic() - began
            if waited >= self._timeout:
                what = "certificate of the issuer" if self._whole else "Secret of cert-manager"
                raise CertificateError(f"certificate: no {what} within {waited:.0f} s\n{self._why()}")
            if time.monotonic() - reported >= REPORT_EVERY_SECONDS:
                reported = time.monotonic()
                self._say(f"certificate: not there after {waited:.0f} s; {self._why().splitlines()[-1]}")
            time.sleep(POLL_SECONDS)

    def _answered(self) -> bool:
        from infra.engine.cluster import ClusterError  # noqa: PLC0415  # kept out of the pickled provider

        try:
            over = self._over()
        except ClusterError:
            if self._silent is None:
                self._silent = time.monotonic()
            if time.monotonic() - self._silent >= SILENCE_SECONDS:
                raise
            return False
        self._silent = None
        return over

    def _over(self) -> bool:
        """Tell whether the certificate is there. Raises CertificateError when cert-manager does not go on."""
        certificate = self._look.certificate()
        if certificate is None:
            if self._gone is None:
                self._gone = time.monotonic()
            if time.monotonic() - self._gone >= GONE_SECONDS:
                raise CertificateError("certificate: Certificate edge is gone from the cluster")
            return False
        self._gone = None
        if issued(certificate) if self._whole else self._look.has_secret():
            return True
        if self._whole and failed(certificate, self._requests(certificate)):
            raise CertificateError(
                f"certificate: cert-manager got none from the issuer, and waits before it tries again\n{self._why()}\n"
                f"when the cause is gone: `cmctl renew {certificate['metadata']['name']} --namespace "
                f"{certificate['metadata']['namespace']}`"
            )
        return False

    def _requests(self, certificate: Plain) -> list[Plain]:
        name = certificate["metadata"]["name"]
        return [
            one
            for one in self._look.listed("cert-manager.io", "certificaterequests")
            if (one["metadata"].get("annotations") or {}).get(OF_CERTIFICATE) == name
        ]

    def _why(self) -> str:
        from infra.engine.cluster import ClusterError  # noqa: PLC0415

        try:
            return self._told()
        except ClusterError as problem:
            return str(problem)

    def _told(self) -> str:
        certificate = self._look.certificate()
        if certificate is None:
            return "Certificate edge is gone from the cluster"
        return told(
            certificate,
            self._requests(certificate),
            self._look.listed("acme.cert-manager.io", "orders"),
            self._look.listed("acme.cert-manager.io", "challenges"),
        )


class CertificateReadyProvider(dynamic.ResourceProvider):
    """Waits for one certificate. Pickled by reference: this module must keep its name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Wait; raise with the reason when there is no certificate."""
        self._wait(props)
        return dynamic.CreateResult("certificate", props)

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Wait for the certificate of another issuer, or for other names."""
        self._wait(news)
        return dynamic.UpdateResult(news)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.DiffResult:
        """Wait again when the Certificate is another one, or was changed."""
        return dynamic.DiffResult(
            changes=any(olds.get(key) != news.get(key) for key in ("certificate", "uid", "generation"))
        )

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Forget a certificate that is not there any more, so that `up` waits for it again."""
        look = ClusterLook(props["certificate"])
        found = look.certificate()
        there = found is not None and (issued(found) if props["whole"] else look.has_secret())
        return dynamic.ReadResult(id_, props) if there else dynamic.ReadResult("", {})

    @staticmethod
    def _wait(props: Mapping[str, Any]) -> None:
        whole = bool(props["whole"])
        timeout = ISSUED_SECONDS if whole else SECRET_SECONDS
        Wait(ClusterLook(props["certificate"]), whole=whole, timeout=timeout, say=pulumi.log.info).run()


class CertificateReady(dynamic.Resource):
    """Exists when a Certificate has its Secret, with `whole` when the issuer's certificate is in it.

    Inputs: certificate (`infra.engine.cluster.Workload` as text), uid and generation of the object, whole.
    """

    def __init__(
        self,
        name: str,
        *,
        certificate: pulumi.Input[str],
        uid: pulumi.Input[str],
        generation: pulumi.Input[float],
        whole: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"certificate": certificate, "uid": uid, "generation": generation, "whole": whole}
        super().__init__(CertificateReadyProvider(), name, props, opts)
