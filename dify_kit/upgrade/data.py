"""What a stack's data says about itself: what wrote it, and how large it is."""

from collections.abc import Iterable
from typing import Any

from dify_kit.backup import volumes
from dify_kit.upgrade.path import Written
from infra.catalogue.selection import volume_names
from infra.catalogue.service import Keep

STORAGE, MARKER = "app_storage", ".dify-kit"


def written(stack: str, client: Any = None) -> Written | None:  # noqa: ANN401  # docker's client has no types
    """Return what wrote a stack's data; None where no deployment has come so far. Raises KitError."""
    found = volumes.read_file(client or volumes.connect(), f"dify-{stack}-{STORAGE}", stack, MARKER)
    return None if found is None else Written.read(found.decode(errors="replace"))


def size(stack: str, client: Any = None) -> int:  # noqa: ANN401
    """Return how many bytes the volumes that are backed up hold, at most what an archive of them needs.

    0 where the engine does not say.
    """
    names = {f"dify-{stack}-{name}" for name in volume_names(Keep.DATA, Keep.RECORDS)}
    try:
        listed: Iterable[dict[str, Any]] = (client or volumes.connect()).api.df().get("Volumes") or ()
    except volumes.BROKEN:
        return 0
    return sum(
        max(0, int((one.get("UsageData") or {}).get("Size") or 0)) for one in listed if one["Name"] in names
    )
