"""How services are named: each name is a label of DNS, so that every platform can give it to a service.

Dify's compose file has an underscore where the kit has a hyphen (`db_postgres`, `db-postgres`). That spelling stays
accepted where a file of an operator may hold it, and on Docker it stays an alias in the networks. Roles of images,
volumes and networks keep their own names: `plugin_daemon` is the role of an image as well.
"""

import re
from collections.abc import Mapping
from typing import Any

from infra.catalogue.services import SERVICES


def service_name(name: str) -> str:
    """Return the kit's name of a service, from either spelling; any other name as it is."""
    ours = name.replace("_", "-")
    return ours if ours in SERVICES else name


def compose_name(service: str) -> str:
    """Return the name that Dify's compose file has for one of the kit's services."""
    return service.replace("-", "_")


def spellings(service: str) -> tuple[str, ...]:
    """Return every name to which a service answers on Docker: its own, and compose's where that is another one."""
    return tuple(dict.fromkeys((service, compose_name(service))))


_OTHERS: Mapping[str, str] = {compose_name(name): name for name in SERVICES if compose_name(name) != name}
# A host in an address: after `//` or a login's `@`, or before a port.
_NAMES = "|".join(sorted(_OTHERS, key=len, reverse=True))
_HOST = re.compile(rf"(?<=//)({_NAMES})(?![\w.-])|(?<=@)({_NAMES})(?![\w.-])|(?<![\w.-])({_NAMES})(?=:\d)")


def with_service_hosts(variable: str, value: str) -> str:
    """Return the value of a variable as the compose file sets it, with the kit's names of the hosts in it.

    Text that is no address stays: `plugin_daemon` is the prefix of keys as well.
    """
    if variable.endswith("HOST"):
        return service_name(value)
    return _HOST.sub(lambda match: _OTHERS[match[0]], value)


def compose_services(services: Mapping[str, Any]) -> dict[str, Any]:
    """Return services of a resolved compose folder by the kit's names, with its hosts in their `variables`."""
    return {
        service_name(name): {
            **service,
            "variables": {
                variable: value if value is None else with_service_hosts(variable, value)
                for variable, value in service["variables"].items()
            },
        }
        for name, service in services.items()
    }
