"""Refuses settings that do not fit the claims that a stack has on its cluster."""

from collections.abc import Iterator, Mapping

from infra.catalogue.selection import volume_names
from infra.catalogue.service import Keep
from infra.guards import volumes
from infra.guards.cluster_facts import CLASSES, Plain, View, items
from infra.guards.findings import Refusal
from infra.platforms.kubernetes import demand
from infra.platforms.kubernetes.names import dns_label
from infra.platforms.kubernetes.storage import READ_WRITE_MANY, SHARED
from infra.settings.kubernetes import Kubernetes
from infra.settings.stack import Settings


def refusals(settings: Settings, chosen: Kubernetes, view: View) -> list[Refusal]:
    """Return the claims that were made with other settings than these."""
    wanted = {dns_label(name): name for name in volume_names(*Keep)}
    found = {name: one for name, one in view.claims(chosen.namespace).items() if name in wanted}
    problems = []
    for name in sorted(found):
        labels = found[name]["metadata"].get("labels") or {}
        problems += volumes.unfit(f"claim {name}", labels, volumes.fitting(settings))
        modes = found[name]["spec"].get("accessModes") or []
        if wanted[name] in SHARED and chosen.shared_storage_class and READ_WRITE_MANY not in modes:
            problems.append(
                Refusal(
                    problem=f"dify:kubernetes.sharedStorageClass: claim {name} exists with {', '.join(modes)}, which "
                    "one node alone can mount, and a claim cannot be changed",
                    fix="set it to empty; or copy the data to a claim of that class",
                )
            )
    return [*problems, *_sizes(chosen, view, found)]


def _sizes(chosen: Kubernetes, view: View, claims: Mapping[str, Plain]) -> Iterator[Refusal]:
    """Yield why claims that exist do not get the size of the settings: it shrinks never, and grows by its class."""
    size = float(chosen.volume_gigabytes * demand.GIB)
    held = {
        name: demand.amount(((one["spec"].get("resources") or {}).get("requests") or {}).get("storage", 0))
        for name, one in claims.items()
    }
    key = f"dify:kubernetes.volumeGigabytes: {chosen.volume_gigabytes}"
    if held and size < min(held.values()):
        least = int(min(held.values()) // demand.GIB)
        yield Refusal(
            problem=f"{key}: the claims that exist have {least} GiB or more, and a claim cannot shrink",
            fix=f"set it to {least}",
            setting="kubernetes.volumeGigabytes",
            value=str(least),
        )
    smaller = sorted(name for name, one in held.items() if 0 < one < size)
    if not smaller:
        return
    classes = {str(one["metadata"]["name"]): one for one in items(view, CLASSES) or []}
    fixed = sorted(
        {
            kind
            for name in smaller
            if (kind := str(claims[name]["spec"].get("storageClassName") or "")) in classes
            and not classes[kind].get("allowVolumeExpansion")
        }
    )
    if fixed:
        yield Refusal(
            problem=f"{key}: the claims {', '.join(smaller)} have less, and the storage class {', '.join(fixed)} does "
            "not let a claim grow (allowVolumeExpansion)",
            fix="set it back, or copy the data to claims of a class that does",
        )
        return
    patch = '{"spec":{"resources":{"requests":{"storage":"%dGi"}}}}' % chosen.volume_gigabytes  # noqa: UP031  # braces
    yield Refusal(
        problem=f"{key}: the claims {', '.join(smaller)} have less, and `up` changes no claim that exists",
        fix=f"let them grow first: `kubectl patch pvc {' '.join(smaller)} --namespace {chosen.namespace} "
        f"--patch '{patch}'`; or set it back",
    )
