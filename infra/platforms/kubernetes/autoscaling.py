"""The HorizontalPodAutoscaler of a service."""

from typing import Any

from infra.catalogue.service import Limits
from infra.platforms.kubernetes.names import STACK_LABEL, dns_label
from infra.settings.autoscale import Autoscale

# KEDA refuses an object for what another autoscaler scales. `up` makes that one before it deletes this one.
REPLACEABLE = {"validations.keda.sh/hpa-ownership": "false"}


def autoscaler(stack: str, service: str, limits: Limits, chosen: Autoscale) -> dict[str, Any]:
    """Return the object by which the cluster chooses the number of a Deployment's pods.

    Its target is CPU of a pod as an amount: a share (`averageUtilization`) would be of the request, which is small for
    every service so that a stack fits small nodes.
    """
    millicores = round(limits.cpus * 10 * chosen.cpu_percent)
    target = {"type": "AverageValue", "averageValue": f"{millicores}m"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": dns_label(service),
            "labels": {STACK_LABEL: stack},
            "annotations": dict(REPLACEABLE),
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": dns_label(service)},
            "minReplicas": chosen.least,
            "maxReplicas": chosen.most,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }
