"""Where images come from: `dify:images` and `dify:mirror`."""

import re

from infra import hints
from infra.settings.reader import Section

IMAGE_MODES = ("registry", "mirror", "preloaded", "local")
MIRROR = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*")
REGISTRY_HOST = re.compile(r"[.:]|^localhost$")


def read_images(top: Section, stack: str) -> str:
    """Read `dify:images`."""
    if not top.raw("images"):
        top.problems.lines.append(
            f"dify:images: not set; run `{hints.kit('init', stack)}`, or use one of {', '.join(IMAGE_MODES)}"
        )
        return IMAGE_MODES[0]
    return top.choice("images", IMAGE_MODES)


def read_mirror(top: Section, images: str) -> str:
    """Read `dify:mirror`, which belongs to `images` mirror alone."""
    mirror = top.text("mirror")
    if images == "mirror" and not MIRROR.fullmatch(mirror):
        top.problems.add(
            "mirror",
            mirror,
            "is not a registry prefix",
            "use host[:port][/path] in lower case, without a scheme",
        )
    elif images == "mirror" and not REGISTRY_HOST.search(mirror.partition("/")[0]):
        top.problems.add(
            "mirror",
            mirror,
            "is not a registry: Docker reads a name without a dot and a port as a repository of Docker Hub",
            "write the host with its domain or its port, such as registry:443/dify",
        )
    elif images != "mirror" and mirror:
        top.problems.add("mirror", mirror, f"not used by dify:images {images}", "set dify:images to mirror")
    return mirror
