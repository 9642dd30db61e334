"""The kit's release catalogue, read in the image: what each service of this release accepts, and its apps' DSL."""

from collections.abc import Mapping

from dify_standin.config import refuse, release
from infra.catalogue.releases import RELEASES, Release
from infra.catalogue.variables import Variable

# Roles of the stand-in's images -> services of the catalogue. Workers and the migration run from api's image.
SERVICES = {
    "api": "api",
    "web": "web",
    "sandbox": "sandbox",
    "plugin-daemon": "plugin-daemon",
    "agent-backend": "agent-backend",
    "local-sandbox": "local-sandbox",
}
# The official images set these themselves: the plugin daemon's `-local` tags are those of this platform.
OF_THE_IMAGE = frozenset({"PLATFORM"})


def current() -> Release:
    """Return the release that this container plays; end the start for one that the catalogue does not have."""
    version = release()
    if version not in RELEASES:
        refuse(
            f"DIFY_STANDIN_RELEASE: the stand-in does not support {version!r}; set one of {', '.join(RELEASES)}"
        )
    return RELEASES[version]


def variables(role: str) -> Mapping[str, Variable]:
    """Return what the environment of a role may hold, by name."""
    return current().variables(SERVICES[role])


def problems(role: str, environment: Mapping[str, str]) -> dict[str, tuple[Variable, str]]:
    """Return the variables that the real service would refuse, by name, with their values.

    Unknown names are not among them: Dify ignores variables that it does not know.
    """
    known = variables(role)
    return {
        name: (known[name], value)
        for name, value in sorted(environment.items())
        if name in known and known[name].problem(value)
    }


def required(role: str) -> list[str]:
    """Return the variables without which the facts say that the service does not start, but for those of its image."""
    return [
        name for name, variable in variables(role).items() if variable.required and name not in OF_THE_IMAGE
    ]
