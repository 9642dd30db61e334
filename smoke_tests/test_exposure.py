"""The stack exposes only what it must: ports, privileges, networks, published secrets."""

from collections.abc import Collection
from urllib.parse import unquote, urlsplit

import pytest

from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from infra.catalogue.selection import data_ports
from infra.catalogue.services import GATEWAY_REDIS, SERVICES
from infra.platforms.kubernetes.names import dns_label
from infra.platforms.kubernetes.workloads import EDGE
from smoke_tests.engine import Container
from smoke_tests.inside import Inside, Pods
from smoke_tests.masking import SHORTEST, Redactor
from smoke_tests.namespace import excess
from smoke_tests.target import OUTSIDERS, Deployment

pytestmark = pytest.mark.needs_stack

DATA_PORTS = data_ports()
# How often what must answer is probed again.
TRIES = 3
# Prints `open host port` for each target that answers within two seconds, with PostgreSQL's or Redis's protocol on
# their ports. A connection alone proves nothing: when a container has a route out, an address without a route of its
# own leaves the host, and a device outside may accept every connection.
BASH_PROBE = r"""
probe() {
  exec 3<>"/dev/tcp/${1/ //}" || exit 1
  case "$1" in
    *" 5432") printf '\0\0\0\010\004\322\026\057' >&3 ;;
    *) printf 'GET / HTTP/1.0\r\n\r\n' >&3 ;;
  esac
  case "$1,$(head -c 1 <&3)" in
    *" 5432,"[SN] | *" 6379,"[-+]) ;;
    *" 5432,"* | *" 6379,"* | *,) exit 1 ;;
  esac
}
export -f probe
for target in "$@"; do
  (timeout 2 bash -c 'probe "$1"' probe "$target" 2>/dev/null && echo "open $target") &
done
wait
"""
PYTHON_PROBE = r"""
import concurrent.futures, socket, sys
def probe(target):
    host, port = target.split()
    asked = b"\0\0\0\x08\x04\xd2\x16\x2f" if port == "5432" else b"GET / HTTP/1.0\r\n\r\n"
    try:
        with socket.create_connection((host, int(port)), 2) as connection:
            connection.sendall(asked)
            answered = connection.recv(1)
    except OSError:
        return
    if answered in {"5432": (b"S", b"N"), "6379": (b"-", b"+")}.get(port, (answered or None,)):
        print("open", target, flush=True)
with concurrent.futures.ThreadPoolExecutor(32) as pool:
    list(pool.map(probe, sys.argv[1:]))
"""
SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "KEY")


@pytest.fixture(scope="module")
def containers(inside: Inside, redact: Redactor) -> dict[str, Container]:
    """Every container with the stack's label, by service; their secrets are masked from here on."""
    found = {container.service: container for container in inside.of_stack()}
    for container in found.values():
        redact.learn(_secrets(container))
    return found


def _secrets(container: Container) -> list[str]:
    return [
        value
        for name, value in container.environment.items()
        if any(word in name for word in SECRET_WORDS) and len(value) >= SHORTEST and not value.startswith("/")
    ]


def test_only_exported_containers_belong_to_the_stack(
    containers: dict[str, Container], deployment: Deployment
) -> None:
    exported = {*deployment.containers.values(), *deployment.jobs.values()}

    assert {container.name for container in containers.values()} == exported


def test_only_the_edge_publishes_ports(containers: dict[str, Container], deployment: Deployment) -> None:
    published = {service: one.published for service, one in containers.items() if one.published}
    # On a cluster an Ingress or a proxy may send to the edge's Service.
    hidden = set() if deployment.on_engine else {deployment.edge}

    assert published.keys() | hidden == {deployment.edge}, published


@pytest.mark.needs_engine
def test_the_edge_listens_on_its_address_and_port_only(
    containers: dict[str, Container], deployment: Deployment
) -> None:
    published = {(one.address, one.port) for one in containers[deployment.edge].published}

    ports = {deployment.http_port, deployment.tls.https_port} - {None}
    everywhere = {"0.0.0.0", "::"}  # noqa: S104  # as configured
    addresses = everywhere if deployment.bind_address == "*" else {deployment.bind_address}
    assert {port for _, port in published} == ports
    assert {address for address, _ in published} == addresses


def test_no_container_has_host_access(containers: dict[str, Container]) -> None:
    findings = []
    for service, one in containers.items():
        findings += [f"{service}: privileged"] if one.privileged else []
        findings += [f"{service}: the host's {kind} namespace" for kind in one.host_namespaces]
        findings += [
            f"{service}: {source} mounted" for source in one.mounts if source.endswith("docker.sock")
        ]
        if not any(option.startswith("no-new-privileges") for option in one.security_options):
            findings.append(f"{service}: without no-new-privileges")

    assert containers
    assert not findings


def test_every_container_has_a_memory_limit(containers: dict[str, Container]) -> None:
    assert containers
    assert not [service for service, one in containers.items() if one.memory_limit <= 0]


@pytest.mark.needs_engine
def test_every_container_has_a_limit_of_processes(containers: dict[str, Container]) -> None:
    assert containers
    assert not [service for service, one in containers.items() if one.pids_limit <= 0]


@pytest.mark.needs_cluster
def test_only_the_service_of_the_edge_is_reachable_from_outside_of_the_cluster(pods: Pods) -> None:
    reachable = pods.namespace.reachable()

    assert reachable.keys() <= {EDGE}, reachable


@pytest.mark.needs_cluster
def test_no_pod_has_a_token_of_the_cluster(pods: Pods) -> None:
    rights = pods.namespace.rights()

    assert rights
    assert not [one.name for one in rights if one.token]


@pytest.mark.needs_cluster
def test_no_pod_mounts_a_directory_of_its_node(containers: dict[str, Container]) -> None:
    assert containers
    assert not {service: one.mounts for service, one in containers.items() if one.mounts}


@pytest.mark.needs_cluster
def test_pods_have_the_rights_of_their_service_and_no_others(pods: Pods) -> None:
    found = pods.namespace.rights()
    services = {dns_label(name): service for name, service in SERVICES.items()}

    assert services.keys() & {one.service for one in found}
    assert not [why for one in found if one.service in services for why in excess(one, services[one.service])]


@pytest.mark.needs_cluster
def test_what_no_policy_allows_is_denied(pods: Pods) -> None:
    assert pods.namespace.denies_by_default(), "no NetworkPolicy selects every pod and allows nothing"


@pytest.fixture(scope="module")
def data_addresses(containers: dict[str, Container]) -> set[str]:
    """Return the endpoints of the data tier: `host port` by name and by address."""
    return _addresses(containers, {network for one in containers.values() for network in one.networks})


def _addresses(containers: dict[str, Container], networks: set[str]) -> set[str]:
    """Return the endpoints of the data tier in some networks, by name and by address."""
    return {
        f"{address} {port}"
        for service, port in DATA_PORTS.items()
        if service in containers
        for address in (
            service,
            *(at for name, at in containers[service].networks.items() if name in networks),
        )
        if address
    }


def test_the_api_reaches_the_data_tier(inside: Inside, containers: dict[str, Container]) -> None:
    # Otherwise the probe of the next test would find every port closed.
    data = {name: one for name, one in containers.items() if name != GATEWAY_REDIS}
    reachable = _addresses(data, set(containers["api"].networks))

    assert len(reachable) >= 4, f"database and Redis by name and address expected, found {reachable}"
    assert _open_ports(inside, containers["api"].name, sorted(reachable), reachable) == reachable


@pytest.mark.needs_gateway
def test_the_gateway_reaches_only_its_own_redis(
    inside: Inside, containers: dict[str, Container], data_addresses: set[str], gateway: str
) -> None:
    own = _addresses({GATEWAY_REDIS: containers[GATEWAY_REDIS]}, set(containers[GATEWAY_REDIS].networks))

    assert _open_ports(inside, containers[gateway].name, sorted(data_addresses), own) == own


@pytest.mark.needs_gateway
@pytest.mark.parametrize("other", ["api", "plugin-daemon"])
def test_only_the_gateway_reaches_its_redis(
    inside: Inside, containers: dict[str, Container], other: str, gateway: str
) -> None:
    own = _addresses({GATEWAY_REDIS: containers[GATEWAY_REDIS]}, set(containers[GATEWAY_REDIS].networks))
    control = f"redis {DATA_PORTS['redis']}"

    assert gateway in containers
    assert _open_ports(inside, containers[other].name, sorted({control, *own}), {control}) == {control}


def test_the_data_tier_is_out_of_reach(
    inside: Inside, containers: dict[str, Container], data_addresses: set[str], outsider: str
) -> None:
    control = "{} {}".format(*OUTSIDERS[outsider])

    opened = _open_ports(inside, containers[outsider].name, sorted({control, *data_addresses}), {control})

    assert control in opened, f"the probe in {outsider} does not reach {control}, which it must"
    assert opened == {control}


def _open_ports(inside: Inside, name: str, targets: list[str], must: Collection[str] = ()) -> set[str]:
    """Return which of `host port` answer a probe from inside a container, made with bash or python3.

    On a busy machine a probe may take longer than its two seconds: those that `must` answer get more.
    """
    found = _probed(inside, name, targets)
    for _ in range(TRIES):
        if not (silent := sorted(set(must) - found)):
            break
        found |= _probed(inside, name, silent)
    return found


def _probed(inside: Inside, name: str, targets: list[str]) -> set[str]:
    tools = {
        "bash": ["bash", "-c", BASH_PROBE, "probe"],
        "python3": ["python3", "-c", PYTHON_PROBE],
    }
    for tool, command in tools.items():
        found, _ = inside.run(name, ["sh", "-c", f"command -v {tool} && command -v timeout"])
        if found == 0:
            code, output = inside.run(name, [*command, *targets])
            assert code == 0, output
            return {line.removeprefix("open ") for line in output.splitlines() if line.startswith("open ")}
    raise AssertionError(f"{name} has neither bash nor python3 to probe with")


def test_code_leaves_the_sandbox_through_its_proxy_only(
    inside: Inside, containers: dict[str, Container], sandbox: str
) -> None:
    with_a_way_out = [name for name in containers[sandbox].networks if not inside.internal(name)]

    assert containers[sandbox].networks
    assert not with_a_way_out


def test_no_published_default_secret_is_in_use(containers: dict[str, Container]) -> None:
    found = [
        f"{service}: {name}"
        for service, one in sorted(containers.items())
        for name, value in sorted(one.environment.items())
        if PUBLISHED_DEFAULTS & _parts(value)
    ]

    assert containers
    assert not found, (
        "secrets that are published in Dify's repository; replace them with `pulumi config set --secret`"
    )


def _parts(value: str) -> set[str]:
    """Return a variable's value, and the user name and password when it is a URL."""
    try:
        url = urlsplit(value)
    except ValueError:
        return {value}
    return {value, unquote(url.username or ""), unquote(url.password or "")}


def test_the_edge_holds_no_secret(containers: dict[str, Container], deployment: Deployment) -> None:
    edge = containers[deployment.edge]
    found = [
        f"{service}: {name}"
        for service, one in sorted(containers.items())
        if service != deployment.edge
        for name, value in sorted(one.environment.items())
        if value in _secrets(one) and value in edge.raw
    ]

    assert len(containers) > 1
    assert not found, "secrets of other services in `docker inspect` of the edge"
