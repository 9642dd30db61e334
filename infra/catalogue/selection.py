"""What the catalogue's rows say together: which services, networks, mounts and volumes a stack has, and their names.

Every function reads the tables when it is called.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from infra.catalogue import images, networks, services, volumes
from infra.catalogue.service import Keep, Mount, Part, Service, Tier

# The parts that a setting turns on and that need an image of their own.
OPTIONAL_IMAGES = (Part.CERTBOT, Part.GATEWAY, Part.LITELLM)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What decides which rows a stack has: the services of its release, its vector store, and the parts turned on.

    `external` are services of the catalogue that the stack does not run, because it uses a server outside of it.
    """

    release: Collection[str]
    vector_store: str
    parts: frozenset[Part] = frozenset()
    external: frozenset[str] = frozenset()

    def _runs(self, name: str, service: Service) -> bool:
        if name in self.external:
            return False
        if service.part is Part.RELEASE:
            return name in self.release
        if service.part is Part.VECTOR_STORE:
            return name == self.vector_store
        return self._on(service.part)

    def _on(self, part: Part) -> bool:
        return part is Part.STACK or part in self.parts

    def services(self, tier: Tier | None = None) -> dict[str, Service]:
        """Return the services that the stack runs, of all tiers or of one, in the order in which they start."""
        return {
            name: one
            for name, one in services.SERVICES.items()
            if self._runs(name, one) and tier in {None, one.tier}
        }

    def networks(self) -> dict[str, bool]:
        """Return the stack's networks; the value says whether one is internal, without a route to the outside."""
        running = self.services()
        return {
            name: one.internal
            for name, one in networks.NETWORKS.items()
            if self._on(one.part) and (not one.service or one.service in running)
        }

    def mounts(self, service: Service) -> tuple[Mount, ...]:
        """Return the mounts that a service has in this stack."""
        return tuple(mount for mount in service.mounts if self._on(mount.part))

    def volumes(self, tier: Tier) -> dict[str, Keep]:
        """Return the volumes that a tier creates: those that a service of it mounts before any other tier does."""
        first: dict[str, Tier] = {}
        for service in self.services().values():
            for mount in self.mounts(service):
                first.setdefault(mount.volume, service.tier)
        return {name: keep for name, keep in volumes.VOLUMES.items() if first.get(name) is tier}


def of_part(part: Part) -> tuple[str, ...]:
    """Return the names of the services that exist by one condition, in the order in which they start."""
    return tuple(name for name, one in services.SERVICES.items() if one.part is part)


def vector_stores() -> frozenset[str]:
    """Return the values of `dify:vectorStore` that a stack runs by itself."""
    return frozenset(of_part(Part.VECTOR_STORE))


def known(release: Collection[str]) -> frozenset[str]:
    """Return the services that settings may name: those of the release, and all that no release lists."""
    return frozenset(
        name for name, one in services.SERVICES.items() if one.part is not Part.RELEASE or name in release
    )


def jobs() -> frozenset[str]:
    """Return the services that run once and end."""
    return frozenset(name for name, one in services.SERVICES.items() if one.job)


def without_variables() -> frozenset[str]:
    """Return the services that are configured by files or by the kit alone, and read no variables of an operator."""
    return frozenset(name for name, one in services.SERVICES.items() if not one.variables)


def templated() -> frozenset[str]:
    """Return the services whose configuration comes from templates that an operator can replace."""
    return frozenset(name for name, one in services.SERVICES.items() if one.templates)


def variables_of(service: str) -> str:
    """Return the service whose entries of a catalogue file describe the environment of `service`."""
    one = services.SERVICES.get(service)
    return one.variables if one and one.variables else service


def readers(*, complete: bool = True) -> tuple[str, ...]:
    """Return the services that have entries of their own in a catalogue file.

    `complete`: only those whose entries list every variable that the service reads.
    """
    return tuple(
        name
        for name, one in services.SERVICES.items()
        if one.variables == name and (one.variables_complete or not complete)
    )


def partly_known() -> frozenset[str]:
    """Return the servers that read more variables than a catalogue file lists."""
    return frozenset(name for name, one in services.SERVICES.items() if not one.variables_complete)


def go_services() -> frozenset[str]:
    """Return the services that read numbers and booleans as Go does."""
    return frozenset(name for name, one in services.SERVICES.items() if one.go)


def release_roles() -> dict[str, str]:
    """Return the services that a release may list, with the role of the image that each runs."""
    return {name: services.SERVICES[name].image for name in of_part(Part.RELEASE)}


def required_services() -> frozenset[str]:
    """Return the services that every release lists."""
    return frozenset(name for name, one in services.SERVICES.items() if one.required)


def required_images() -> frozenset[str]:
    """Return the roles that every release has an image for, beside those of the services that it lists."""
    of_the_kit = images.own_roles() | images.images_of_the_kit().keys()
    roles = {one.image for one in services.SERVICES.values() if one.part is not Part.RELEASE}
    return frozenset(roles - of_the_kit - set(release_roles().values()))


def service_of_role(role: str) -> str:
    """Return the service that runs the image of a role: the one of the same name, else the first."""
    running = [name for name, one in services.SERVICES.items() if one.image == role]
    same = role.replace("_", "-")
    return same if same in running else running[0]


def of_tier(tier: Tier) -> frozenset[str]:
    """Return the services of a tier that keep running."""
    return frozenset(name for name, one in services.SERVICES.items() if one.tier is tier and not one.job)


def data_ports() -> dict[str, int]:
    """Return the services that hold data, with the port of each."""
    return {name: one.port for name, one in services.SERVICES.items() if one.holds_data and one.port}


def port_of(service: str) -> int:
    """Return the port on which a service answers others. Raises KeyError for a service without one."""
    port = services.SERVICES[service].port
    if port is None:
        raise KeyError(service)
    return port


def importers() -> tuple[str, ...]:
    """Return the services that import Dify when they start, in the order in which others wait for them."""
    return tuple(name for name, one in services.SERVICES.items() if one.imports_dify)


def volume_names(*keep: Keep) -> tuple[str, ...]:
    """Return the names of the volumes that last as long as one of `keep`."""
    return tuple(name for name, one in volumes.VOLUMES.items() if one in keep)


def by_compose_network() -> Mapping[str, str]:
    """Return the kit's networks with the name of the official compose folder's network that isolates the same."""
    return {name: one.compose for name, one in networks.NETWORKS.items() if one.compose}
