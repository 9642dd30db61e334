"""What a Certificate of cert-manager says about itself, in the form of the Kubernetes API."""

from collections.abc import Mapping, Sequence
from typing import Any

Plain = Mapping[str, Any]
# What cert-manager says of a request that it does not try again by itself for an hour.
FINAL = frozenset({"Failed", "Denied"})
OF_CERTIFICATE = "cert-manager.io/certificate-name"


def condition(found: Plain, kind: str) -> Plain:
    """Return the condition of a kind; empty where there is none yet."""
    listed = (found.get("status") or {}).get("conditions") or []
    return next((one for one in listed if one.get("type") == kind), {})


def issued(certificate: Plain) -> bool:
    """Tell whether the Secret has a certificate of the issuer, for the present spec.

    Beside a certificate that cert-manager signs by itself until then, the revision is 0.
    """
    ready = condition(certificate, "Ready")
    present = int(ready.get("observedGeneration") or 0) >= int(certificate["metadata"].get("generation") or 0)
    revision = int((certificate.get("status") or {}).get("revision") or 0)
    return ready.get("status") == "True" and present and revision > 0


def failed(certificate: Plain, requests: Sequence[Plain]) -> bool:
    """Tell whether the last request was refused, and cert-manager waits before it tries again."""
    if condition(certificate, "Issuing").get("status") == "True" or not requests:
        return False
    last = max(requests, key=_age)
    return condition(last, "Ready").get("reason") in FINAL or bool(condition(last, "InvalidRequest"))


def told(
    certificate: Plain, requests: Sequence[Plain], orders: Sequence[Plain], challenges: Sequence[Plain]
) -> str:
    """Return why there is no certificate: the last of each object on the way to it, one a line."""
    lines = [_conditions(certificate, "Certificate", ("Ready", "Issuing"))]
    if requests:
        last = max(requests, key=_age)
        lines.append(_conditions(last, "CertificateRequest", ("Denied", "InvalidRequest", "Ready")))
        made = [one for one in orders if _is_of(one, last)]
        if made:
            order = max(made, key=_age)
            lines.append(_state(order, "Order"))
            lines += [_state(one, "Challenge") for one in challenges if _is_of(one, order)]
    return "\n".join(filter(None, lines)) or "cert-manager has said nothing about it: do its pods run?"


def _age(one: Plain) -> str:
    """Return when an object was made: a text that sorts as the time does."""
    return str(one["metadata"].get("creationTimestamp") or "")


def _is_of(one: Plain, owner: Plain) -> bool:
    names = [ref.get("name") for ref in one["metadata"].get("ownerReferences") or []]
    return owner["metadata"]["name"] in names


def _conditions(one: Plain, kind: str, wanted: Sequence[str]) -> str:
    found = [condition(one, name) for name in wanted]
    said = [
        f"{each['type']}={each.get('status')}, {each.get('reason') or 'no reason'}: {each.get('message') or ''}".strip()
        for each in found
        if each
    ]
    return f"{kind} {one['metadata']['name']}: {'; '.join(said)}" if said else ""


def _state(one: Plain, kind: str) -> str:
    status = one.get("status") or {}
    where = (one.get("spec") or {}).get("dnsName")
    said = ": ".join(filter(None, (str(status.get("state") or "no state"), str(status.get("reason") or ""))))
    return f"{kind} {one['metadata']['name']}{f' for {where}' if where else ''}: {said}"
