"""Stopping a stack before Pulumi removes it: in parallel where the order does not matter.

Pulumi deletes containers one after another along their dependencies and waits for each to stop. What is stopped
before is deleted without a wait. Each service keeps its own signal and its own grace period.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dify_kit.containers.docker_host import Container, Engine
from infra.catalogue.selection import of_tier
from infra.catalogue.service import Tier

# Pulumi deletes the apps' keys through api, and api needs these: they are stopped by Pulumi, when it comes to them.
# Without the edge and with nothing to do, they stop within seconds.
KEPT = frozenset({"api", "db-postgres", "redis"})
_RUNNING = frozenset({"running", "restarting"})


def rounds(containers: Iterable[Container]) -> list[list[Container]]:
    """Return what is stopped together, one group after another; what does not run or has to stay is left out."""
    running = [one for one in containers if one.state in _RUNNING and one.service not in KEPT]
    # The edge first: requests in flight are answered as long as all services behind it still run.
    first = of_tier(Tier.EDGE)
    edge = [one for one in running if one.service in first]
    rest = [one for one in running if one.service not in first]
    return [group for group in (edge, rest) if group]


def stop(engine: Engine, containers: Sequence[Container], say: Callable[[str], None]) -> None:
    """Stop the containers of a stack that Pulumi does not need any more. Raises KitError."""
    for group in rounds(containers):
        say(f"  stopping {', '.join(sorted(one.service for one in group))}")
        with ThreadPoolExecutor(len(group)) as pool:
            # Not lazily: each one's failure is raised here.
            list(pool.map(lambda one: engine.stop_container(one.id), group))
