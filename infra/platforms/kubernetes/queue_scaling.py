"""Workers by the length of their queues: what KEDA needs for it."""

import re
from collections.abc import Mapping
from typing import Any

import pulumi

from infra.catalogue import ports
from infra.catalogue.addresses import CLUSTER_DOMAIN
from infra.catalogue.data_services import REDIS
from infra.platforms.kubernetes.names import STACK_LABEL, dns_label, selector
from infra.platforms.kubernetes.policies import policy
from infra.platforms.kubernetes.storage import UNWAITED
from infra.services.queues import Broker
from infra.settings.autoscale import Autoscale

API = "keda.sh/v1alpha1"
# How often KEDA reads the lengths. A queue that grows for a minute has got a worker after one and a half.
POLL_SECONDS = 15
PASSWORD, CA = "password", "ca"  # keys of the Secret


def credentials(broker: Broker) -> Mapping[str, pulumi.Input[str]]:
    """Return the content of the Secret that KEDA reads."""
    return {PASSWORD: broker.password, **({CA: broker.ca} if broker.ca else {})}


def authentication(stack: str, service: str, broker: Broker, secret: pulumi.Input[str]) -> dict[str, Any]:
    """Return how KEDA signs in to Redis; `secret` is the name of the Secret with `credentials`."""
    keys = [PASSWORD, *([CA] if broker.ca else [])]
    return {
        "apiVersion": API,
        "kind": "TriggerAuthentication",
        "metadata": {
            "name": dns_label(service),
            "labels": {STACK_LABEL: stack},
            "annotations": dict(UNWAITED),
        },
        "spec": {"secretTargetRef": [{"parameter": key, "name": secret, "key": key} for key in keys]},
    }


def scaled_object(
    stack: str, service: str, namespace: str, broker: Broker, chosen: Autoscale
) -> dict[str, Any]:
    """Return the object by which KEDA chooses the number of a Deployment's pods.

    It adds up the jobs that wait in all queues: each worker takes jobs from each of them. While Redis does not answer,
    the number stays as it is.
    """
    names = {re.sub(r"\W", "_", queue): queue for queue in broker.queues}
    return {
        "apiVersion": API,
        "kind": "ScaledObject",
        "metadata": {
            "name": dns_label(service),
            "labels": {STACK_LABEL: stack},
            "annotations": dict(UNWAITED),
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": dns_label(service)},
            "pollingInterval": POLL_SECONDS,
            "minReplicaCount": chosen.least,
            "maxReplicaCount": chosen.most,
            "advanced": {
                "scalingModifiers": {
                    "formula": " + ".join(names),
                    "target": str(chosen.jobs),
                    "metricType": "AverageValue",
                }
            },
            "triggers": [
                {
                    "type": "redis",
                    "name": name,
                    "metadata": {
                        "address": _address(broker, namespace),
                        "databaseIndex": str(broker.database),
                        "listName": f"{broker.prefix}{queue}",
                        "listLength": str(chosen.jobs),
                        "enableTLS": str(broker.tls).lower(),
                        **({"username": broker.user} if broker.user else {}),
                    },
                    "authenticationRef": {"name": dns_label(service)},
                }
                for name, queue in names.items()
            ],
        },
    }


def _address(broker: Broker, namespace: str) -> str:
    host = broker.host or f"{dns_label(REDIS)}.{namespace}.svc.{CLUSTER_DOMAIN}"
    return f"{host}:{broker.port}"


def access(stack: str, broker: Broker, namespace: str) -> dict[str, Any] | None:
    """Return the policy by which KEDA, in its `namespace`, reaches the Redis of the stack; None for an external one."""
    if broker.host:
        return None
    operator = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    rule = {"from": [operator], "ports": [{"port": ports.REDIS, "protocol": "TCP"}]}
    return policy(
        stack,
        "queue-scaling",
        {"matchLabels": dict(selector(REDIS))},
        {"policyTypes": ["Ingress"], "ingress": [rule]},
    )
