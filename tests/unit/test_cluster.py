"""The test cluster: what its name decides, its certificates, its configuration files, its objects, its commands."""

import ipaddress
import json
import re
import shlex
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dify_kit.errors import KitError, UsageError
from support.stacks import CHECKOUT
from tests.cluster import components, images, lifecycle, objects, plan, programs
from tests.cluster.pki import Authority
from tests.cluster.plan import API_PORT, Plan, check_name, resolvers

PORTS = {API_PORT: 41000, 30080: 41001, 30443: 41002}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan of a cluster whose files are in a data directory of the test."""
    monkeypatch.setenv("DIFY_KIT_HOME", str(tmp_path / "home"))
    return Plan(name="unit", subnet="10.85.7", ports=PORTS, upstream_dns=("192.0.2.53", "192.0.2.54"))


@pytest.mark.parametrize("name", ["dev", "a", "it-12ab-34", "a" * 32])
def test_names_that_docker_takes_are_accepted(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "Dev", "a_b", "a/b", "..", "a" * 33, "a b"])
def test_other_names_are_refused_with_the_value(name: str) -> None:
    with pytest.raises(UsageError, match="CLUSTER=") as refused:
        check_name(name)
    assert name in refused.value.message


def test_two_clusters_share_no_name(cluster: Plan) -> None:
    other = Plan(name="unit-2", subnet="10.85.8", ports=PORTS, upstream_dns=())

    def names(one: Plan) -> set[str]:
        return {one.network, one.shared, str(plan.directory(one.name)), *map(one.container, one.nodes)}

    assert len(names(cluster)) == 5
    assert names(cluster).isdisjoint(names(other))


def test_addresses_are_distinct_and_in_their_ranges(cluster: Plan) -> None:
    pods = [ipaddress.ip_network(node.pods) for node in cluster.nodes]

    assert not pods[0].overlaps(pods[1])
    assert all(one.subnet_of(ipaddress.ip_network(plan.POD_RANGE)) for one in pods)  # type: ignore[arg-type]
    services = ipaddress.ip_network(plan.SERVICE_RANGE)
    assert ipaddress.ip_address(plan.DNS_SERVICE) in services
    for subnet in lifecycle.SUBNETS:
        network = ipaddress.ip_network(f"{subnet}.0/24")
        assert not any(
            network.overlaps(ipaddress.ip_network(one)) for one in (plan.POD_RANGE, plan.SERVICE_RANGE)
        )
    for node in cluster.nodes:
        assert ipaddress.ip_address(node.address) in ipaddress.ip_network("10.85.7.0/24")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["nameserver 192.0.2.1\nnameserver 192.0.2.2\n"], ("192.0.2.1", "192.0.2.2")),
        (["# nameserver 192.0.2.9\n  nameserver\t192.0.2.1\nsearch a"], ("192.0.2.1",)),
        # systemd-resolved listens for this machine only.
        (["nameserver 127.0.0.53\n", "nameserver 192.0.2.3\n"], ("192.0.2.3",)),
        (["nameserver 127.0.0.53\nnameserver 192.0.2.4\n", "nameserver 192.0.2.3\n"], ("192.0.2.4",)),
        (["nameserver ::1\n"], ()),
        ([], ()),
    ],
)
def test_name_servers_are_those_that_containers_reach(texts: list[str], expected: tuple[str, ...]) -> None:
    assert resolvers(*texts) == expected


def test_certificates_name_user_groups_and_hosts(authority: Authority) -> None:
    signed = authority.sign("system:node:node1", "system:nodes", hosts=("node1", "10.85.7.11"))

    found = signed.certificate
    assert isinstance(authority.ca.key, ec.EllipticCurvePrivateKey)
    found.verify_directly_issued_by(authority.ca.certificate)
    assert [one.value for one in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [
        "system:node:node1"
    ]
    groups = found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [one.value for one in groups] == ["system:nodes"]
    hosts = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["node1"]
    assert hosts.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.85.7.11")]
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}


def test_a_client_certificate_serves_no_host(authority: Authority) -> None:
    found = authority.sign("dify-kit", "system:masters").certificate

    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert authority.ca.certificate.not_valid_after_utc >= found.not_valid_after_utc


def test_the_kubeconfig_has_one_context_of_the_clusters_name(cluster: Plan, authority: Authority) -> None:
    document = yaml.safe_load(authority.kubeconfig(authority.sign("a"), cluster.api, cluster.name))

    assert document["current-context"] == "unit"
    assert [one["name"] for kind in ("contexts", "clusters", "users") for one in document[kind]] == [
        "unit"
    ] * 3
    assert document["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:41000"


def test_only_the_server_gets_the_keys_of_the_control_plane(cluster: Plan, authority: Authority) -> None:
    server, worker = (components.files(cluster, node, authority) for node in cluster.nodes)

    assert {"apiserver.key", "tokens.key"} <= set(server)
    assert {name for name in worker if name.endswith(".key")} == {"kubelet.key"}
    secret = authority.ca.key_pem
    assert not any(secret in text for text in (*server.values(), *worker.values()))
    assert server["kubelet.key"] != worker["kubelet.key"]


def test_every_file_that_a_command_names_exists(cluster: Plan, authority: Authority) -> None:
    for node in cluster.nodes:
        found = components.files(cluster, node, authority)
        named = set(re.findall(rf"{components.FILES}/([\w.-]+)", "\n".join(found.values())))
        script = (images.CONTAINERS / "node" / "start.sh").read_text(encoding="utf-8")
        named |= set(re.findall(r"\s/cluster/([\w.-]+)", script))
        named |= set(re.findall(r"</cluster/([\w.-]+)", script))

        assert len(named) > 8
        assert named <= set(found)


def test_the_configurations_are_what_their_readers_parse(cluster: Plan, authority: Authority) -> None:
    node = cluster.nodes[1]
    found = components.files(cluster, node, authority)

    kubelet = yaml.safe_load(found["kubelet.yaml"])
    assert kubelet["kind"] == "KubeletConfiguration"
    assert kubelet["cgroupRoot"] == components.OWN_CGROUP
    assert kubelet["authentication"]["anonymous"]["enabled"] is False
    assert kubelet["clusterDNS"] == [plan.DNS_SERVICE]
    assert yaml.safe_load(found["kube-proxy.yaml"])["clusterCIDR"] == plan.POD_RANGE
    bridge, _ = json.loads(found["10-bridge.conflist"])["plugins"]
    # Masqueraded pods would have the node's address, which no policy selects.
    assert bridge["ipMasq"] is False
    assert bridge["ipam"]["ranges"] == [[{"subnet": node.pods}]]
    cri = tomllib.loads(found["containerd.toml"])["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == components.PAUSE_IMAGE
    assert found["resolv.conf"] == "nameserver 192.0.2.53\nnameserver 192.0.2.54\n"
    assert found["routes"] == f"{cluster.server.pods} via {cluster.server.address}\n"
    variables = dict(line.split("=", 1) for line in found["node"].splitlines())
    script = (images.CONTAINERS / "node" / "start.sh").read_text(encoding="utf-8")
    assert set(variables) == set(re.findall(r"\$(?:\{)?([A-Z]{3,}[A-Z_]*)", script)) - {"PATH"}


def test_both_nodes_enforce_policies_and_only_the_server_has_the_control_plane(cluster: Plan) -> None:
    server, worker = (components.commands(cluster, node) for node in cluster.nodes)

    assert list(worker) == ["kubelet", "kube-proxy", "netpol"]
    assert set(server) - set(worker) == {
        *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "local-path-provisioner"),
    }
    # What serves the kubelet starts before the runtime, which the kubelet waits for.
    assert list(server).index("kube-apiserver") < list(server).index("kubelet")
    for found in (server, worker):
        for name, words in found.items():
            assert words[0] == name
            assert name in {*programs.ROLES, "netpol", "local-path-provisioner"}


def test_commands_are_one_line_each_as_the_start_script_reads_them(
    cluster: Plan, authority: Authority
) -> None:
    text = components.files(cluster, cluster.server, authority)["programs"]

    parsed = {name: shlex.split(rest) for name, rest in (line.split(" ", 1) for line in text.splitlines())}
    assert parsed == components.commands(cluster, cluster.server)


def test_secrets_are_in_files_and_not_in_commands(cluster: Plan) -> None:
    for node in cluster.nodes:
        started = lifecycle.start_command(cluster, node)
        assert "PRIVATE KEY" not in " ".join(started)
        assert str(plan.kubeconfig(cluster.name)) not in " ".join(started)


def test_ports_are_published_on_loopback_by_the_server_only(cluster: Plan) -> None:
    server, worker = (lifecycle.start_command(cluster, node) for node in cluster.nodes)

    published = [server[place + 1] for place, word in enumerate(server) if word == "--publish"]
    assert published == ["127.0.0.1:41000:6443", "127.0.0.1:41001:30080", "127.0.0.1:41002:30443"]
    assert "--publish" not in worker


def test_a_node_has_its_own_files_read_only_and_its_label(cluster: Plan, tmp_path: Path) -> None:
    for node in cluster.nodes:
        words = lifecycle.start_command(cluster, node)
        mounts = [words[place + 1] for place, word in enumerate(words) if word == "--volume"]

        assert f"{tmp_path}/home/clusters/unit/{node.name}:/cluster:ro" in mounts
        assert [one.split(":")[0] for one in mounts if not one.endswith(":ro")] == [
            cluster.shared,
            "/sys/fs/cgroup",
        ]
        assert words[words.index("--label") + 1] == "dify-kit.cluster=unit"
        assert words[words.index("--ip") + 1] == node.address
        assert "--privileged" not in words


def test_objects_are_complete_and_use_images_of_the_archive() -> None:
    items = objects.everything()

    names = [(one["kind"], one["metadata"]["name"]) for one in items]
    assert len(set(names)) == len(names)
    (deployment,) = [one for one in items if one["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    accounts = {name for kind, name in names if kind == "ServiceAccount"}
    assert pod["serviceAccountName"] in accounts
    assert objects.STORAGE_ACCOUNT in accounts
    (storage,) = [one for one in items if one["metadata"]["name"] == components.STORAGE_CONFIG]
    helper = yaml.safe_load(storage["data"]["helperPod.yaml"])
    for container in (pod["containers"][0], helper["spec"]["containers"][0]):
        assert container["imagePullPolicy"] == "Never"
        assert container["image"] in {objects.DNS_IMAGE, components.HELPER_IMAGE}
    (service,) = [one for one in items if one["kind"] == "Service"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_every_module_of_a_program_is_in_the_repository_with_its_version() -> None:
    for build, required in (
        (programs.HYPERKUBE, f"k8s.io/kubernetes v{programs.KUBERNETES}"),
        (programs.DNS, f"github.com/coredns/coredns v{programs.COREDNS}"),
        (programs.POLICIES, f"github.com/cloudnativelabs/kube-router/v2 v{programs.KUBE_ROUTER}"),
        (programs.STORAGE, f"github.com/rancher/local-path-provisioner v{programs.LOCAL_PATH}"),
    ):
        (part,) = build.parts
        module = programs.MODULES / part.module
        assert required in (module / "go.mod").read_text(encoding="utf-8")
        assert (module / "go.sum").is_file()
        assert list(module.glob("*.go"))
    assert programs.SANDBOX.key.startswith("pause-")


def test_kubernetes_reports_the_version_of_its_module() -> None:
    linker = programs.HYPERKUBE.parts[0].linker

    assert f"version.gitVersion=v{programs.KUBERNETES} " in f"{linker} "
    assert "gitMajor=1 " in linker
    libraries = f"v0.{programs.KUBERNETES.removeprefix('1.')}"
    for module in ("hyperkube", "netpol", "local-path"):
        text = (programs.MODULES / module / "go.mod").read_text(encoding="utf-8")
        assert re.search(rf"k8s\.io/client-go {re.escape(libraries)}\b", text), module


def test_programs_change_their_place_with_their_sources_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    places = {build.directory for build in programs.BUILDS}

    assert len(places) == len(programs.BUILDS)
    assert all(place.is_relative_to(tmp_path / "dify-kit" / "cluster") for place in places)
    assert len(programs.missing()) == len(programs.BUILDS)


def test_images_follow_their_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, archive = images.node_image(), images.archive()
    copy = tmp_path / "containers"
    for folder in ("node", "tools", "program"):
        (copy / folder).mkdir(parents=True)
        for path in (images.CONTAINERS / folder).iterdir():
            (copy / folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(images, "CONTAINERS", copy)
    assert (images.node_image(), images.archive()) == (before, archive)

    (copy / "node" / "start.sh").write_text("changed", encoding="utf-8")
    assert images.node_image() != before
    assert images.archive() == archive
    (copy / "tools" / "Dockerfile").write_text("changed", encoding="utf-8")
    assert images.archive() != archive


def test_only_images_that_a_node_lacks_are_loaded() -> None:
    found = {"a:1": "sha256:1", "b:1": "sha256:2", "c:1": "sha256:3"}

    assert images.wanted(found, {}) == ["a:1", "b:1", "c:1"]
    assert images.wanted(found, {"a:1": "sha256:1", "b:1": "sha256:old"}) == ["b:1", "c:1"]
    assert images.wanted(found, found) == []


class Calls(list[tuple[str, ...]]):
    """Stands for the docker client: notes what it is called with, and answers."""

    def __init__(self, answers: dict[tuple[str, ...], str | KitError]) -> None:
        super().__init__()
        self.answers = answers

    def __call__(self, *words: str, **_options: object) -> str:
        self.append(words)
        found = next((text for start, text in self.answers.items() if words[: len(start)] == start), "")
        if isinstance(found, KitError):
            raise found
        return found


def test_down_removes_what_has_the_label_and_the_files(
    cluster: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "home" / "clusters" / cluster.name
    own.mkdir(parents=True)
    calls = Calls({("ps",): "c1\nc2", ("volume", "ls"): "v1", ("network", "ls"): "n1"})
    monkeypatch.setattr(lifecycle, "docker", calls)

    lifecycle.down("unit")

    removed = [words for words in calls if "rm" in words]
    assert removed == [
        ("rm", "--force", "--volumes", "c1", "c2"),
        ("volume", "rm", "--force", "v1"),
        ("network", "rm", "n1"),
    ]
    assert all("label=dify-kit.cluster=unit" in words for words in calls if "--filter" in words)
    assert not own.exists()


def test_down_of_a_cluster_that_is_gone_does_nothing(monkeypatch: pytest.MonkeyPatch, cluster: Plan) -> None:
    calls = Calls({})
    monkeypatch.setattr(lifecycle, "docker", calls)

    lifecycle.down(cluster.name)

    assert not [words for words in calls if "rm" in words]


def test_a_network_that_is_taken_is_passed_over(cluster: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = KitError("Error response from daemon: Pool overlaps with other one on this address space")
    first = ("network", "create", "--subnet", f"{lifecycle.SUBNETS[0]}.0/24")
    monkeypatch.setattr(lifecycle, "docker", Calls({first: taken}))

    assert lifecycle._make_network(cluster.name) == lifecycle.SUBNETS[1]


def test_other_problems_of_a_network_are_reported(cluster: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "docker", Calls({("network", "create"): KitError("permission denied")}))

    with pytest.raises(KitError, match="permission denied"):
        lifecycle._make_network(cluster.name)


def test_the_written_files_are_private_and_are_read_back(
    cluster: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifecycle._write_files(cluster)

    root = tmp_path / "home" / "clusters" / "unit"
    assert root.stat().st_mode & 0o777 == 0o700
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    there = "\n".join(map(cluster.container, cluster.nodes))
    monkeypatch.setattr(lifecycle, "docker", Calls({("ps",): there}))
    found = lifecycle.existing("unit")
    assert found is not None
    assert found.plan == cluster
    assert found.port(30080) == 41001
    # One node is missing: the cluster is none.
    monkeypatch.setattr(lifecycle, "docker", Calls({("ps",): there.split()[0]}))
    assert lifecycle.existing("unit") is None


def test_a_wait_that_fails_reports_the_last_problem_and_the_logs(
    cluster: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "docker", Calls({("exec",): "last words of the kubelet"}))
    monkeypatch.setattr(lifecycle, "POLL_SECONDS", 0)
    answers = iter(["not yet", "still not"])

    def problem() -> str:
        return next(answers, "never")

    with pytest.raises(KitError, match="never") as failed:
        lifecycle._wait(
            lifecycle.Cluster(plan=cluster),
            "node1",
            problem,
            deadline=time.monotonic() + 0.05,
        )
    assert "last words of the kubelet" in failed.value.message
    assert "cluster-down CLUSTER=unit" in failed.value.hint


def test_the_makefile_has_the_targets() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")

    for target in ("cluster", "cluster-down", "test-cluster"):
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target
