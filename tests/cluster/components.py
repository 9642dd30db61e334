"""The configuration files and commands of the programs that a node runs."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from tests.cluster.pki import Authority
from tests.cluster.plan import (
    API_PORT,
    DNS_SERVICE,
    KUBERNETES_SERVICE,
    LOOPBACK,
    POD_RANGE,
    SERVICE_RANGE,
    Node,
    Plan,
)

# Where a node has its own files, the programs, and what pods share, in its container.
FILES, PROGRAMS, SHARED = "/cluster", "/opt/cluster/bin", "/shared"
# The node replaces it with the path of its own control group.
OWN_CGROUP = "@OWN_CGROUP@"
PAUSE_IMAGE = "docker.io/dify-kit-cluster/pause:1"
# A shell for the helper pods of the storage class, and for tests.
HELPER_IMAGE = "docker.io/dify-kit-cluster/tools:1"
DNS_DOMAIN = "cluster.local"
STORAGE_NAMESPACE, STORAGE_CONFIG = "kube-system", "local-path-config"
# A node that is gone is noticed after this time; Kubernetes' default is 50 s.
GRACE_SECONDS, HEARTBEAT_SECONDS = 20, 4
_FOREVER = "0s"


def files(plan: Plan, node: Node, authority: Authority) -> dict[str, str]:
    """Return the files of a node's directory: name -> text. Keys are among them."""
    internal = f"https://{plan.server.address}:{API_PORT}"
    kubelet = authority.sign(f"system:node:{node.name}", "system:nodes", hosts=(node.name, node.address))
    # kube-proxy and netpol of a test cluster have the administrator's rights.
    administrator = authority.sign("dify-kit-node", "system:masters")
    found = {
        "ca.crt": authority.ca.pem,
        "kubelet.crt": kubelet.pem,
        "kubelet.key": kubelet.key_pem,
        "kubelet.kubeconfig": authority.kubeconfig(kubelet, internal, "kubelet"),
        "node.kubeconfig": authority.kubeconfig(administrator, internal, "node"),
        "kubelet.yaml": json.dumps(kubelet_configuration(), indent=1),
        "kube-proxy.yaml": json.dumps(proxy_configuration(), indent=1),
        "containerd.toml": containerd_configuration(),
        "10-bridge.conflist": json.dumps(pod_network(node), indent=1),
        "resolv.conf": "".join(f"nameserver {one}\n" for one in plan.upstream_dns),
        "routes": "".join(f"{one.pods} via {one.address}\n" for one in plan.nodes if one.name != node.name),
        "node": "".join(f"{key}={shlex.quote(value)}\n" for key, value in variables(node).items()),
        "programs": "".join(f"{name} {shlex.join(words)}\n" for name, words in commands(plan, node).items()),
    }
    if node == plan.server:
        hosts = (
            *("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"),
            *(LOOPBACK, node.address, KUBERNETES_SERVICE),
        )
        server = authority.sign("kube-apiserver", "system:masters", hosts=hosts)
        found |= {
            "apiserver.crt": server.pem,
            "apiserver.key": server.key_pem,
            "tokens.key": authority.token_key,
            "tokens.pub": authority.token_public_key,
            "storage.json": json.dumps({"nodePathMap": [], "sharedFileSystemPath": SHARED}),
        }
    return found


def variables(node: Node) -> dict[str, str]:
    """Return the variables that the node's start script reads."""
    return {
        "PODS": node.pods,
        "POD_RANGE": POD_RANGE,
        "SERVICE_RANGE": SERVICE_RANGE,
    }


def commands(plan: Plan, node: Node) -> dict[str, list[str]]:
    """Return what runs on a node besides containerd: name -> command, in the order in which they start."""
    kubeconfig = f"--kubeconfig={FILES}/node.kubeconfig"
    own = {
        "kubelet": [
            *("kubelet", "--config=/run/kubelet.yaml", f"--kubeconfig={FILES}/kubelet.kubeconfig"),
            *(f"--hostname-override={node.name}", f"--node-ip={node.address}"),
        ],
        "kube-proxy": [
            *("kube-proxy", f"--config={FILES}/kube-proxy.yaml", f"--hostname-override={node.name}"),
        ],
        "netpol": [
            *("netpol", "-kubeconfig", f"{FILES}/node.kubeconfig", "-node", node.name),
            *("-services", SERVICE_RANGE),
        ],
    }
    if node != plan.server:
        return own
    return {
        "etcd": _etcd(),
        "kube-apiserver": _apiserver(node),
        "kube-controller-manager": [
            *("kube-controller-manager", kubeconfig, "--leader-elect=false"),
            f"--service-account-private-key-file={FILES}/tokens.key",
            *(f"--root-ca-file={FILES}/ca.crt", "--use-service-account-credentials=true"),
            *(f"--node-monitor-grace-period={GRACE_SECONDS}s", "--node-monitor-period=3s"),
        ],
        "kube-scheduler": ["kube-scheduler", kubeconfig, "--leader-elect=false"],
        **own,
        "local-path-provisioner": [
            *("local-path-provisioner", "start", "--kubeconfig", f"{FILES}/node.kubeconfig"),
            *("--config", f"{FILES}/storage.json", "--namespace", STORAGE_NAMESPACE),
            *("--configmap-name", STORAGE_CONFIG, "--helper-image", HELPER_IMAGE),
        ],
    }


def _etcd() -> list[str]:
    clients, peers = f"http://{LOOPBACK}:2379", f"http://{LOOPBACK}:2380"
    return [
        # Tests lose nothing by a crash of the machine.
        *("etcd", "--data-dir=/var/lib/etcd", "--unsafe-no-fsync", "--log-level=warn"),
        *(f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}"),
        *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
        f"--initial-cluster=default={peers}",
    ]


def _apiserver(node: Node) -> list[str]:
    return [
        *("kube-apiserver", f"--etcd-servers=http://{LOOPBACK}:2379", f"--advertise-address={node.address}"),
        *(f"--secure-port={API_PORT}", f"--service-cluster-ip-range={SERVICE_RANGE}"),
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
        *(f"--client-ca-file={FILES}/ca.crt", f"--tls-cert-file={FILES}/apiserver.crt"),
        *(f"--tls-private-key-file={FILES}/apiserver.key",),
        *(f"--service-account-key-file={FILES}/tokens.pub",),
        *(f"--service-account-signing-key-file={FILES}/tokens.key",),
        "--service-account-issuer=https://kubernetes.default.svc",
        *(f"--kubelet-client-certificate={FILES}/apiserver.crt",),
        *(f"--kubelet-client-key={FILES}/apiserver.key",),
    ]


def kubelet_configuration() -> dict[str, Any]:
    """Return the kubelet's configuration: in a container, without the right to change OOM scores."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{FILES}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{FILES}/kubelet.crt",
        "tlsPrivateKeyFile": f"{FILES}/kubelet.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        # Pods are inside of the node container's own control group, and end with it.
        "cgroupRoot": OWN_CGROUP,
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "featureGates": {"KubeletInUserNamespace": True},
        # Docker's own resolver at 127.0.0.11 is not reachable from pods.
        "resolvConf": f"{FILES}/resolv.conf",
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": DNS_DOMAIN,
        # Images are loaded by hand: a collected one would not come back.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},
        "nodeStatusUpdateFrequency": f"{HEARTBEAT_SECONDS}s",
    }


def proxy_configuration() -> dict[str, Any]:
    """Return the configuration of kube-proxy: iptables, and no sysctl of the machine is changed."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": f"{FILES}/node.kubeconfig"},
        "clusterCIDR": POD_RANGE,
        "oomScoreAdj": 0,
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": _FOREVER,
            "tcpCloseWaitTimeout": _FOREVER,
        },
    }


def pod_network(node: Node) -> Mapping[str, Any]:
    """Return the CNI configuration of a node: a bridge with a range of its own.

    Without the plugin's masquerading: policies of the other node see the pods' own addresses.
    """
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def containerd_configuration() -> str:
    """Return the configuration of containerd, TOML."""
    return f"""version = 2

[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE_IMAGE}"

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""
