"""`dify:protect`: what may not happen to a stack by one slip."""

from infra.settings.reader import Section

PROTECT = "protect"


def read_protect(top: Section, *, keep_volumes: bool) -> bool:
    """Return whether the stack is protected, and report protection of data that goes with the stack anyway."""
    protect = top.boolean(PROTECT)
    if protect and not keep_volumes:
        top.problems.add(
            PROTECT,
            protect,
            "protects data that keepVolumes: false deletes with the stack",
            "set keepVolumes to true, or protect to false",
        )
    return protect
