"""The tests of exposure detect what is wrong on a cluster, shown with the kit's own manifests and changes of them."""

import base64
import copy
import importlib
from collections.abc import Callable
from typing import Any

import pytest

from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import volume_names
from infra.catalogue.service import Keep, Tier
from infra.catalogue.services import SERVICES
from infra.platforms.kubernetes import pods, policies, storage, workloads
from infra.services.specs import networks, specs
from infra.settings.stack import Settings
from smoke_tests.conftest import MARKERS
from smoke_tests.inside import Pods
from smoke_tests.namespace import Namespace, excess
from support.configuration import settings
from tests.unit.test_settings_kubernetes import on_cluster

RELEASE = RELEASES["1.17.1"]
PASSWORD = "kP3vXq8LmZ2w"
REFERENCES = {"api": "kubernetes://c/dify-a/Deployment/api?kubeconfig=%2Fk"}


def namespace(stack: Settings | None = None) -> Any:
    """Return the namespace of a stack as a cluster would show it, ready to be changed."""
    chosen = stack or settings(on_cluster(serviceType="NodePort"))
    assert chosen.kubernetes
    volumes = {
        name: storage.volume(name, keep, shared_class="") for keep in Keep for name in volume_names(keep)
    }
    found: dict[str, list[Any]] = {"pods": [], "services": [], "policies": [], "secrets": []}
    for spec in (one for tier in Tier for one in specs(tier, chosen, RELEASE)):
        parts = pods.Parts(image="r.example/image:1", volumes=volumes, environment=f"{spec.name}-env")
        template = copy.deepcopy(pods.pod_template("a", spec, parts))
        template["metadata"]["name"] = f"{spec.name}-1"
        template["status"] = {"phase": "Running", "podIP": "10.0.0.1"}
        found["pods"].append(template)
        found["services"] += [
            one
            for one in (workloads.service("a", spec), workloads.edge_service("a", spec, chosen.kubernetes))
            if one
        ]
        secret = {"DB_PASSWORD": base64.b64encode(f"{spec.name}-{PASSWORD}".encode()).decode()}
        found["secrets"].append({"metadata": {"name": f"{spec.name}-env"}, "data": secret})
    found["policies"] = copy.deepcopy(policies.policies("a", networks(chosen, RELEASE)))
    return Namespace(**found)


def of(found: Any, service: str) -> Any:
    """Return the pod of a service."""
    return next(one for one in found.pods if one["metadata"]["name"] == f"{service}-1")


@pytest.fixture(scope="module")
def exposure(pytestconfig: pytest.Config) -> Any:  # a module
    for marker in MARKERS:
        pytestconfig.addinivalue_line("markers", marker)
    return importlib.import_module("smoke_tests.test_exposure")


@pytest.fixture
def failed(exposure: Any) -> Callable[[Any], list[str]]:
    """Lend what runs the checks and returns the names of those that fail."""

    def run(found: Any) -> list[str]:
        stack = Pods(REFERENCES)
        stack.__dict__["namespace"] = found
        containers = {one.service: one for one in stack.of_stack()}
        sandbox = "sandbox"
        checks: dict[str, Callable[[], None]] = {
            "reachable": lambda: (
                exposure.test_only_the_service_of_the_edge_is_reachable_from_outside_of_the_cluster(stack)
            ),
            "token": lambda: exposure.test_no_pod_has_a_token_of_the_cluster(stack),
            "mounts": lambda: exposure.test_no_pod_mounts_a_directory_of_its_node(containers),
            "rights": lambda: exposure.test_pods_have_the_rights_of_their_service_and_no_others(stack),
            "deny": lambda: exposure.test_what_no_policy_allows_is_denied(stack),
            "box": lambda: exposure.test_no_container_has_host_access(containers),
            "memory": lambda: exposure.test_every_container_has_a_memory_limit(containers),
            "way out": lambda: exposure.test_code_leaves_the_sandbox_through_its_proxy_only(
                stack, containers, sandbox
            ),
            "defaults": lambda: exposure.test_no_published_default_secret_is_in_use(containers),
        }
        names = []
        for name, check in checks.items():
            try:
                check()
            except AssertionError:
                names.append(name)
        return names

    return run


def test_the_namespace_of_the_kit_passes(failed: Callable[[Any], list[str]]) -> None:
    assert failed(namespace()) == []


def _privileged(found: Any) -> None:
    of(found, "api")["spec"]["containers"][0]["securityContext"]["privileged"] = True


def _capability(found: Any) -> None:
    of(found, "api")["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] = ["SYS_ADMIN"]


def _init_capability(found: Any) -> None:
    of(found, "sandbox")["spec"]["initContainers"][0]["securityContext"]["capabilities"]["drop"] = []


def _writable(found: Any) -> None:
    of(found, "nginx")["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False


def _escalation(found: Any) -> None:
    del of(found, "web")["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"]


def _unlimited(found: Any) -> None:
    del of(found, "web")["spec"]["containers"][0]["resources"]["limits"]["cpu"]


def _memory(found: Any) -> None:
    del of(found, "web")["spec"]["containers"][0]["resources"]["limits"]["memory"]


def _token(found: Any) -> None:
    source = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    of(found, "api")["spec"]["volumes"].append(source)


def _host_path(found: Any) -> None:
    of(found, "api")["spec"]["volumes"].append({"name": "node", "hostPath": {"path": "/"}})


def _host_pid(found: Any) -> None:
    of(found, "api")["spec"]["hostPID"] = True


def _host_port(found: Any) -> None:
    of(found, "api")["spec"]["containers"][0]["ports"] = [{"containerPort": 5001, "hostPort": 5001}]


def _node_port(found: Any) -> None:
    next(one for one in found.services if one["metadata"]["name"] == "redis")["spec"]["type"] = "NodePort"


def _external_address(found: Any) -> None:
    service = next(one for one in found.services if one["metadata"]["name"] == "redis")
    service["spec"]["externalIPs"] = ["192.0.2.1"]


def _open(found: Any) -> None:
    (policy,) = (one for one in found.policies if one["metadata"]["name"] == "default-deny")
    policy["spec"]["egress"] = [{}]


def _way_out(found: Any) -> None:
    found.policies.append(policies._outside("a", "ssrf_proxy"))


def _way_everywhere(found: Any) -> None:
    policy = policies._outside("a", "ssrf_proxy")
    policy["spec"]["egress"] = [{}]
    found.policies.append(policy)


def _default(found: Any) -> None:
    (secret,) = (one for one in found.secrets if one["metadata"]["name"] == "api-env")
    secret["data"]["DB_PASSWORD"] = base64.b64encode(b"difyai123456").decode()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_privileged, ["box"]),
        (_escalation, ["box"]),
        (_host_pid, ["box"]),
        (_capability, ["rights"]),
        (_init_capability, ["rights"]),
        (_writable, ["rights"]),
        (_unlimited, ["rights"]),
        (_memory, ["memory"]),
        (_token, ["token"]),
        (_host_path, ["mounts"]),
        (_host_port, ["reachable"]),
        (_node_port, ["reachable"]),
        (_external_address, ["reachable"]),
        (_open, ["deny", "way out"]),
        (_way_out, ["way out"]),
        (_way_everywhere, ["way out"]),
        (_default, ["defaults"]),
    ],
)
def test_what_is_wrong_is_noticed(
    failed: Callable[[Any], list[str]], change: Callable[[Any], None], expected: list[str]
) -> None:
    found = namespace()
    change(found)

    assert failed(found) == expected


def test_the_container_of_a_service_has_what_its_pod_has() -> None:
    found = {one.service: one for one in namespace().containers(REFERENCES)}

    assert set(found) == {one.name for tier in Tier for one in specs(tier, settings(on_cluster()), RELEASE)}
    api = found["api"]
    assert (api.name, api.status, api.memory_limit) == (REFERENCES["api"], "running", 2048 * 2**20)
    assert api.environment == {"DB_PASSWORD": f"api-{PASSWORD}"}
    assert api.networks == dict.fromkeys(("app", "data", "ssrf-proxy"), "10.0.0.1")
    # One that the exports do not have is called as its pod.
    assert found["web"].name == "web-1"
    assert {service for service, one in found.items() if one.published} == {"nginx"}


def test_a_pod_that_is_not_the_kits_is_one_that_the_exports_lack() -> None:
    found = namespace()
    stray = copy.deepcopy(of(found, "web"))
    stray["metadata"] = {"name": "stray"}
    found.pods.append(stray)

    assert {one.name: one.service for one in found.containers(REFERENCES)}["stray"] == "stray"


def test_a_pod_that_runs_stands_for_its_service() -> None:
    found = namespace()
    ended = copy.deepcopy(of(found, "api"))
    ended["status"] = {"phase": "Failed", "podIP": "10.0.0.9"}
    found.pods.insert(0, ended)

    (api,) = (one for one in found.containers(REFERENCES) if one.service == "api")
    assert api.status == "running"


def test_an_excess_names_the_pod_and_the_right() -> None:
    found = namespace()
    _capability(found)
    (right,) = (one for one in found.rights() if one.name == "api-1/api")

    assert excess(right, SERVICES["api"]) == ["api-1/api: SYS_ADMIN added"]
