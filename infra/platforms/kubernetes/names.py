"""Names and labels of the objects of a stack."""

from collections.abc import Mapping

STACK_LABEL = "dify-kit.stack"
SERVICE_LABEL = "dify-kit.service"
JOB_LABEL = "dify-kit.job"
# A pod has one for each network of its service, and one for each claim that it mounts.
NETWORK_LABEL = "dify-kit.network"
CLAIM_LABEL = "dify-kit.claim"
MEMBER = "true"


def dns_label(name: str) -> str:
    """Return the name of an object for a part of a stack: labels of DNS have no `_`."""
    return name.replace("_", "-")


def network_label(network: str) -> str:
    """Return the label of the pods that are in a network of the stack."""
    return f"{NETWORK_LABEL}/{dns_label(network)}"


def claim_label(volume: str) -> str:
    """Return the label of the pods that mount a volume of the stack."""
    return f"{CLAIM_LABEL}/{dns_label(volume)}"


def selector(service: str) -> Mapping[str, str]:
    """Return the labels that select the pods of a service in the stack's namespace."""
    return {SERVICE_LABEL: dns_label(service)}
