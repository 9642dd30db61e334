"""Starting and removing a test cluster."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dify_kit.containers.docker_host import DockerEngine
from dify_kit.errors import KitError
from dify_kit.setup.commands import HEARTBEAT_SECONDS, done
from dify_kit.talk import say, step
from dify_kit.workspace.files import write_private
from support.ports import free_port
from tests.cluster import images, programs
from tests.cluster.components import FILES, SHARED, files
from tests.cluster.docker import docker, run
from tests.cluster.objects import everything
from tests.cluster.pki import Authority
from tests.cluster.plan import (
    API_PORT,
    LABEL,
    LOOPBACK,
    NODE_PORTS,
    Node,
    Plan,
    check_name,
    directory,
    kubeconfig,
    make,
    resolvers,
)

# All of Docker's default capabilities, and what containerd, the kubelet and iptables need; never all: `--privileged`
# asks for those that a container of a build machine cannot give.
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *(
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "SYS_CHROOT",
    ),
    *("SYS_PTRACE", "SYS_ADMIN", "SYS_NICE", "MKNOD", "LEASE", "AUDIT_WRITE", "SETFCAP", "SYSLOG"),
)
START_SECONDS, POLL_SECONDS = 240.0, 0.3
# Networks of clusters: not those of Docker's pools, of pods, or of services.
SUBNETS = tuple(f"10.85.{number}" for number in range(64))
LAST_LINES = 12
RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster that exists: its plan, and the means to use it."""

    plan: Plan

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.plan.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for this machine; its context has the cluster's name."""
        return kubeconfig(self.name)

    def kubectl(self, *words: str, text: str | None = None, seconds: float = 60) -> str:
        """Run `kubectl` as administrator and return its output; ``text`` is its input. Raises KitError."""
        command = [str(programs.HYPERKUBE.directory / "kubectl"), f"--kubeconfig={self.kubeconfig}", *words]
        return run(command, text=text, seconds=seconds)

    def get(self, *words: str) -> Any:
        """Return what `kubectl get` finds, as JSON."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl(
            "apply", "--filename=-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    def on_node(self, node: str, *command: str) -> str:
        """Run a command in a node's container and return its output. Raises KitError."""
        (found,) = [one for one in self.plan.nodes if one.name == node]
        return docker("exec", self.plan.container(found), *command)

    def load(self, *names: str) -> dict[str, list[str]]:
        """Copy images of the local engine to the nodes that lack them; return node -> names. Raises KitError."""
        nodes = [node.name for node in self.plan.nodes]
        return images.load(self.name, nodes, directory(self.name), names)

    def port(self, node_port: int) -> int:
        """Return the port of 127.0.0.1 where a NodePort of the cluster is published."""
        return self.plan.ports[node_port]


def up(name: str) -> Cluster:
    """Start a cluster, or complete one that exists, and return it when it is ready. Raises KitError."""
    check_name(name)
    _check_engine()
    began = time.monotonic()
    programs.ensure_programs()
    images.ensure_images()
    found = existing(name)
    if found is None:
        # What is left of a start that was interrupted cannot be completed.
        down(name)
        found = Cluster(plan=_create(name))
    else:
        docker("start", *(found.plan.container(node) for node in found.plan.nodes))
    _wait_until_ready(found)
    done(f"test cluster {name}", f"{time.monotonic() - began:.0f} s")
    return found


def existing(name: str) -> Cluster | None:
    """Return the cluster of a name; None unless all of its files and containers exist."""
    try:
        stored = json.loads((directory(name) / "plan.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    stored["ports"] = {int(port): number for port, number in stored["ports"].items()}
    plan = Plan(**stored | {"upstream_dns": tuple(stored["upstream_dns"])})
    there = docker("ps", "--all", "--filter", f"label={LABEL}={name}", "--format", "{{.Names}}").split()
    complete = {plan.container(node) for node in plan.nodes} <= set(there) and kubeconfig(name).is_file()
    return Cluster(plan=plan) if complete else None


def down(name: str) -> None:
    """Remove everything of a cluster, however far its start came. Raises KitError."""
    check_name(name)
    label = f"label={LABEL}={name}"
    for kind, listed, removed in (
        ("container", ["ps", "--all"], ["rm", "--force", "--volumes"]),
        ("volume", ["volume", "ls"], ["volume", "rm", "--force"]),
        ("network", ["network", "ls"], ["network", "rm"]),
    ):
        if found := docker(*listed, "--quiet", "--filter", label).split():
            docker(*removed, *found)
            say(f"  {len(found)} {kind}(s) removed")
    shutil.rmtree(directory(name), ignore_errors=True)


def remove_leftovers(prefix: str) -> int:
    """Remove the clusters whose names begin like this; return how many there were."""
    listed = docker(
        "ps", "--all", "--filter", f"label={LABEL}", "--format", f'{{{{.Label "{LABEL}"}}}}'
    ).split()
    found = {name for name in listed if name.startswith(prefix)}
    for name in found:
        down(name)
    return len(found)


def _check_engine() -> None:
    engine = DockerEngine()
    if not engine.local():
        raise KitError(
            "the test cluster needs the Docker engine of this machine: its nodes mount files of the kit",
            "unset DOCKER_HOST, or run it there",
        )
    version = docker("info", "--format", "{{.CgroupVersion}}")
    if version != "1":
        raise KitError(
            f"the Docker engine uses control groups of version {version}; the test cluster runs with version 1 only",
            "boot with systemd.unified_cgroup_hierarchy=0, or use another cluster by its kubeconfig",
        )


def _create(name: str) -> Plan:
    step(f"creating the test cluster {name}")
    subnet = _make_network(name)
    ports = {port: free_port() for port in (API_PORT, *NODE_PORTS)}
    upstream = resolvers(*(path.read_text(encoding="utf-8") for path in RESOLVERS if path.is_file()))
    if not upstream:
        raise KitError(
            f"no name server that containers reach in {', '.join(map(str, RESOLVERS))}",
            "add a line `nameserver ADDRESS` that is not of 127.0.0.0/8",
        )
    plan = Plan(name=name, subnet=subnet, ports=ports, upstream_dns=upstream)
    _write_files(plan)
    docker("volume", "create", "--label", f"{LABEL}={name}", plan.shared)
    for node in plan.nodes:
        docker(*start_command(plan, node))
    return plan


def _make_network(name: str) -> str:
    """Create the cluster's network and return its subnet: the first that no other network of the engine has."""
    problem = ""
    for subnet in SUBNETS:
        plan = Plan(name=name, subnet=subnet, ports={}, upstream_dns=())
        try:
            docker(
                "network", "create", "--subnet", f"{subnet}.0/24", "--label", f"{LABEL}={name}", plan.network
            )
        except KitError as failed:
            if "overlap" not in failed.message:
                raise
            problem = failed.message
        else:
            return subnet
    raise KitError(
        f"no free network for the cluster: {problem}", "remove unused networks: `docker network prune`"
    )


def _write_files(plan: Plan) -> None:
    authority, root = Authority.new(), directory(plan.name)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for node in plan.nodes:
        own = root / node.name
        own.mkdir(mode=0o700)
        for file, text in files(plan, node, authority).items():
            write_private(own / file, text)
    administrator = authority.sign("dify-kit", "system:masters")
    write_private(root / "plan.json", json.dumps(asdict(plan)))
    write_private(kubeconfig(plan.name), authority.kubeconfig(administrator, plan.api, plan.name))


def start_command(plan: Plan, node: Node) -> list[str]:
    """Return the words of `docker` that start a node."""
    mounts = {
        str(directory(plan.name) / node.name): f"{FILES}:ro",
        str(programs.HYPERKUBE.directory): "/opt/cluster/hyperkube:ro",
        str(programs.POLICIES.directory): "/opt/cluster/netpol:ro",
        str(programs.STORAGE.directory): "/opt/cluster/local-path-provisioner:ro",
        str(images.archive()): "/opt/cluster/images.tar:ro",
        plan.shared: SHARED,
        "/sys/fs/cgroup": "/sys/fs/cgroup:rw",
    }
    published = plan.ports if node == plan.server else {}
    return [
        *("run", "--detach", "--name", plan.container(node), "--hostname", node.name),
        *("--label", f"{LABEL}={plan.name}", "--network", plan.network, "--ip", node.address),
        *(word for one in CAPABILITIES for word in ("--cap-add", one)),
        *(
            word
            for one in ("seccomp", "apparmor", "systempaths")
            for word in ("--security-opt", f"{one}=unconfined")
        ),
        *(word for source, target in mounts.items() for word in ("--volume", f"{source}:{target}")),
        *(
            word
            for inside, outside in published.items()
            for word in ("--publish", f"{LOOPBACK}:{outside}:{inside}")
        ),
        *("--tmpfs", "/run", images.node_image()),
    ]


def _wait_until_ready(cluster: Cluster) -> None:
    deadline = time.monotonic() + START_SECONDS
    _wait(cluster, "the API server", partial(_problem_of_api, cluster), deadline)
    cluster.apply(*everything())
    for node in cluster.plan.nodes:
        _wait(cluster, node.name, partial(_problem_of_node, cluster, node), deadline)
    _wait(cluster, "DNS", partial(_problem_of_dns, cluster), deadline)


def _problem_of_api(cluster: Cluster) -> str:
    cluster.kubectl("get", "--raw=/readyz", "--request-timeout=5s")
    return ""


def _problem_of_node(cluster: Cluster, node: Node) -> str:
    found = cluster.get("node", node.name)
    ready = [one for one in found["status"].get("conditions", []) if one["type"] == "Ready"]
    if not ready or ready[0]["status"] != "True":
        return str(ready[0]["message"]) if ready else "not reported yet"
    cluster.on_node(node.name, "iptables", "--list-rules", "KUBE-ROUTER-FORWARD")
    return ""


def _problem_of_dns(cluster: Cluster) -> str:
    status = cluster.get("deployment", "coredns", "--namespace=kube-system")["status"]
    available, wanted = status.get("availableReplicas", 0), status.get("replicas", 0)
    return "" if wanted and available == wanted else f"{available} of {wanted} replicas are available"


def _wait(cluster: Cluster, what: str, problem: Callable[[], str], deadline: float) -> None:
    """Wait until there is no problem, which may also be a KitError. Raises KitError with the last one and the logs."""
    began = reported = time.monotonic()
    while True:
        try:
            last = problem()
        except KitError as failed:
            last = failed.message
        now = time.monotonic()
        if not last:
            done(f"{what} is ready", f"{now - began:.0f} s")
            return
        if now > deadline:
            raise KitError(
                f"test cluster {cluster.name}: {what} is not ready after {START_SECONDS:.0f} s: {last}\n"
                f"{_logs(cluster)}",
                "the logs are in /var/log/cluster of the nodes; "
                f"`{make('cluster-down', cluster.name)}` removes the cluster",
            )
        if now - reported >= HEARTBEAT_SECONDS:
            reported = now
            say(f"  waiting for {what}: {now - began:.0f} s, {last.splitlines()[-1][:160]}")
        time.sleep(POLL_SECONDS)


def _logs(cluster: Cluster) -> str:
    found: list[str] = []
    for node in cluster.plan.nodes:
        script = f"tail -n {LAST_LINES} /var/log/cluster/kubelet.log /var/log/cluster/kube-apiserver.log 2>/dev/null"
        try:
            text = cluster.on_node(node.name, "sh", "-c", f"{script}; true")
        except KitError as failed:
            text = failed.message
        found.append(f"{node.name}:\n{text}")
    return "\n".join(found)


def names() -> Sequence[str]:
    """Return the names of the clusters that have files here."""
    return sorted(path.name for path in directory("x").parent.glob("*") if path.is_dir())
