"""The certificate that cert-manager makes for the edge, and the way by which a CA checks the names in it."""

from collections.abc import Sequence
from typing import Any

from infra.catalogue import ports
from infra.catalogue.services import NGINX
from infra.edge.tls import SOLVERS
from infra.platforms.kubernetes.names import STACK_LABEL, selector
from infra.platforms.kubernetes.policies import DNS, policy
from infra.platforms.kubernetes.storage import UNWAITED
from infra.settings.certificates import address_of
from infra.settings.tls import Issuer

# The Certificate, and the Secret that cert-manager writes.
NAME, SECRET = "edge", "edge-certificate"  # names of objects
API = "cert-manager.io/v1"
# nginx needs a certificate to start, and a CA that checks names by HTTP needs nginx: cert-manager makes one that is
# signed by itself until it has that of the issuer.
TEMPORARY = {"cert-manager.io/issue-temporary-certificate": "true"}
# cert-manager's label of the pods by which it answers a CA.
SOLVER = {"acme.cert-manager.io/http01-solver": "true"}
_NUMBERS = [{"port": ports.ACME_SOLVER, "protocol": "TCP"}]


def certificate(stack: str, hosts: Sequence[str], issuer: Issuer) -> dict[str, Any]:
    """Return the Certificate for the hosts of a stack. Pulumi does not wait for it: `CertificateReady` does.

    The Secret outlives it, because a CA limits the number of certificates; the next Certificate takes it over.
    """
    addresses = [str(found) for host in hosts if (found := address_of(host))]
    names = [host for host in hosts if not address_of(host)]
    return {
        "apiVersion": API,
        "kind": "Certificate",
        "metadata": {
            "name": NAME,
            "labels": {STACK_LABEL: stack},
            "annotations": {**TEMPORARY, **UNWAITED},
        },
        "spec": {
            "secretName": SECRET,
            "secretTemplate": {"labels": {STACK_LABEL: stack}},
            "issuerRef": {"group": "cert-manager.io", "kind": issuer.kind, "name": issuer.name},
            **({"dnsNames": names} if names else {}),
            **({"ipAddresses": addresses} if addresses else {}),
            "privateKey": {"rotationPolicy": "Always"},
            "usages": ["digital signature", "key encipherment", "server auth"],
        },
    }


def solver_policies(stack: str, *, edge: bool) -> list[dict[str, Any]]:
    """Return the policies by which challenges reach the pods that answer them; `edge`: nginx passes them on too.

    cert-manager starts these pods in the namespace of the stack, where nothing is allowed otherwise.
    """
    solvers = {"matchLabels": SOLVER}
    found = [policy(stack, SOLVERS, solvers, {"policyTypes": ["Ingress"], "ingress": [{"ports": _NUMBERS}]})]
    if edge:
        passed = {"to": [{"podSelector": solvers}], "ports": _NUMBERS}
        found.append(
            policy(
                stack,
                f"{SOLVERS}-edge",
                {"matchLabels": dict(selector(NGINX))},
                {"policyTypes": ["Egress"], "egress": [passed, DNS]},
            )
        )
    return found


def solver_service(stack: str) -> dict[str, Any]:
    """Return the Service whose name has the addresses of all pods that answer challenges (`acme/challenges.conf`)."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SOLVERS, "labels": {STACK_LABEL: stack}, "annotations": dict(UNWAITED)},
        "spec": {
            "clusterIP": "None",
            "selector": dict(SOLVER),
            "ports": [{"name": "http", "port": ports.ACME_SOLVER, "protocol": "TCP"}],
        },
    }
