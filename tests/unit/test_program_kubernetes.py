"""The whole program with `dify:platform kubernetes`, against a recorder: what it declares in the namespace."""

import re
from typing import Any

from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import Selection
from infra.catalogue.service import Keep, Tier
from infra.catalogue.services import SERVICES
from infra.edge.paths import EDGE_DIRECTORY
from infra.engine.cluster import Workload
from infra.platforms.kubernetes.platform import of_other_kind
from tests.unit.recording import CLUSTER_ADDRESS, CONTAINER, DYNAMIC, IMAGE, Recorder, run_program
from tests.unit.test_program_oauth import OAUTH
from tests.unit.test_settings_kubernetes import on_cluster

DEPLOYMENT, STATEFUL_SET = "kubernetes:apps/v1:Deployment", "kubernetes:apps/v1:StatefulSet"
JOB, SECRET, SERVICE = "kubernetes:batch/v1:Job", "kubernetes:core/v1:Secret", "kubernetes:core/v1:Service"
CLAIM, NAMESPACE = "kubernetes:core/v1:PersistentVolumeClaim", "kubernetes:core/v1:Namespace"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
SCALER = "kubernetes:autoscaling/v2:HorizontalPodAutoscaler"
BUDGET = "kubernetes:policy/v1:PodDisruptionBudget"
CHOSEN = Selection(release=RELEASES["1.17.1"].services, vector_store="pgvector")


def program(plain: dict[str, Any] | None = None, **parts: Any) -> Recorder:
    return run_program(on_cluster(plain, **parts))


def test_every_service_is_a_workload_and_no_docker_is_needed() -> None:
    recorder = program()
    found = {kind: set(recorder.of(kind)) for kind in (DEPLOYMENT, STATEFUL_SET, JOB)}

    assert set().union(*found.values()) == set(CHOSEN.services())
    assert found[STATEFUL_SET] == {name for name, one in CHOSEN.services().items() if one.holds_data}
    assert found[JOB] == {name for name, one in CHOSEN.services().items() if one.job}
    assert not recorder.of(CONTAINER)
    assert not recorder.of(IMAGE)
    assert {name for name in recorder.of(DYNAMIC) if name.endswith("-ready")} == {
        f"{name}-ready" for name in CHOSEN.services()
    }


def test_everything_is_in_the_stack_s_namespace() -> None:
    recorder = program(namespace="team-dify")
    objects = [one for one in recorder.resources if one.type.startswith("kubernetes:")]

    assert {one.inputs["metadata"]["name"] for one in objects if one.type == NAMESPACE} == {"team-dify"}
    assert {one.inputs["metadata"]["namespace"] for one in objects if one.type != NAMESPACE} == {"team-dify"}
    # Through the stack's own provider, never through the context that happens to be the current one.
    assert all(re.search(r"kubernetes::cluster(::|$)", one.provider) for one in objects), objects[0].provider


def test_nginx_gets_new_pods_where_a_service_has_another_address() -> None:
    recorder = program()
    made = recorder.of(DEPLOYMENT)
    aliases = made["nginx"]["spec"]["template"]["spec"]["hostAliases"]
    content = recorder.of(SECRET)["nginx-configuration"]["stringData"]
    passed = {
        name
        for text in content.values()
        for name in re.findall(r"proxy_pass ([\w.-]+\.svc\.cluster\.local):", text)
    }

    # It resolves the names once, at its start.
    assert "api.dify-unit.svc.cluster.local" in passed
    assert passed <= {name for one in aliases for name in one["hostnames"]}
    assert {one["ip"] for one in aliases} == {CLUSTER_ADDRESS}
    assert "hostAliases" not in made["web"]["spec"]["template"]["spec"]


def test_claims_are_the_volumes_that_outlive_the_stack() -> None:
    kept = {
        f"volume-{name}"
        for tier in Tier
        for name, keep in CHOSEN.volumes(tier).items()
        if keep is not Keep.EPHEMERAL
    }

    assert set(program().of(CLAIM)) == kept
    labels = program().of(CLAIM)["volume-postgres"]["metadata"]["labels"]
    assert labels["dify-kit.stack"] == "unit"
    assert labels["dify-kit.images"] == "local"


def test_no_workload_holds_a_secret() -> None:
    recorder = program()
    workloads = [one for kind in (DEPLOYMENT, STATEFUL_SET, JOB) for one in recorder.of(kind).values()]
    text = repr(workloads)

    for name, content in recorder.of(SECRET).items():
        if not name.endswith("-environment"):
            continue
        hidden = [
            value
            for variable, value in content["stringData"].items()
            if re.search(r"PASSWORD$|SECRET_KEY$|API_KEY$", variable) and len(value) > 16
        ]
        assert not [value for value in hidden if value in text], name
    assert "env" not in {key for one in workloads for key in one["spec"]["template"]["spec"]["containers"][0]}


def test_nginx_starts_with_the_configuration_of_the_stack() -> None:
    recorder = program()
    pod = recorder.of(DEPLOYMENT)["nginx"]["spec"]["template"]["spec"]
    content = recorder.of(SECRET)["nginx-configuration"]["stringData"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == "configuration"]
    files = {item["path"]: content[item["key"]] for item in volume["secret"]["items"]}
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "configuration"]
    revision = mount["mountPath"].rpartition("/")[2]

    assert mount["mountPath"] == f"{EDGE_DIRECTORY}/releases/{revision}"
    assert revision in files["live/revision.conf"]
    assert "resolver 10.96.0.10 valid=30s ipv6=off;\nresolver_timeout 12s;" in files["stream/upstreams.conf"]
    assert "api.dify-unit.svc.cluster.local:5001;" in files["stream/upstreams.conf"]
    assert "127.0.0.11" not in "".join(files.values())
    # What a Secret can hold.
    assert sum(len(text.encode()) for text in files.values()) < 1024 * 1024 * 3 // 4
    # nginx waits for no configuration: one that it does not accept ends the container.
    assert "until" not in " ".join(pod["containers"][0]["args"])


def test_the_gateway_starts_with_its_clients() -> None:
    recorder = program(OAUTH, replicas={"gateway": 2})
    content = recorder.of(SECRET)["gateway-configuration"]["stringData"]

    assert any('"clients"' in text for text in content.values())
    assert recorder.of(DEPLOYMENT)["gateway"]["spec"]["replicas"] == 2


def test_replicas_are_of_the_settings_and_spared_by_a_drain() -> None:
    recorder = program(sharedStorageClass="nfs", replicas={"api": 3, "edge": 2})

    assert recorder.of(DEPLOYMENT)["api"]["spec"]["replicas"] == 3
    assert set(recorder.of(BUDGET)) == {"api", "nginx"}
    assert recorder.of(CLAIM)["volume-app_storage"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_cluster_chooses_the_number_of_autoscaled_pods() -> None:
    recorder = program(sharedStorageClass="nfs", autoscale={"api": {"min": 2, "max": 6, "cpuPercent": 50}})
    (found,) = recorder.of(SCALER).values()
    deployment = recorder.of(DEPLOYMENT)["api"]["spec"]
    (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]

    assert "replicas" not in deployment
    assert recorder.of(DEPLOYMENT)["web"]["spec"]["replicas"] == 1
    assert found["spec"]["scaleTargetRef"]["name"] == "api"
    assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (2, 6)
    assert spread["labelSelector"]["matchLabels"] == {"dify-kit.service": "api"}
    # It holds for any number of pods.
    assert recorder.of(BUDGET)["api"]["spec"]["maxUnavailable"] == 1
    assert {name for name, one in recorder.of(DYNAMIC).items() if one.get("autoscaled")} == {"api-ready"}


def routed(**parts: Any) -> Recorder:
    addresses = {
        "publicUrl": "https://dify.example.com",
        "urls": {"app": "https://apps.example.com"},
        "trustedProxies": ["10.244.0.0/16"],
    }
    return program(addresses, **parts)


def test_an_ingress_leads_every_host_to_the_edge() -> None:
    annotations = {"cert-manager.io/cluster-issuer": "letsencrypt"}
    recorder = routed(ingress={"className": "nginx", "tlsSecret": "dify-tls", "annotations": annotations})
    (found,) = recorder.of("kubernetes:networking.k8s.io/v1:Ingress").values()
    hosts = ["dify.example.com", "apps.example.com"]
    (port,) = recorder.of(SERVICE)["edge"]["spec"]["ports"]

    assert found["spec"]["ingressClassName"] == "nginx"
    assert [rule["host"] for rule in found["spec"]["rules"]] == hosts
    assert found["spec"]["tls"] == [{"hosts": hosts, "secretName": "dify-tls"}]
    for rule in found["spec"]["rules"]:
        (path,) = rule["http"]["paths"]
        assert path["backend"] == {"service": {"name": "edge", "port": {"number": port["port"]}}}
    assert annotations.items() <= found["metadata"]["annotations"].items()
    assert not recorder.of("kubernetes:gateway.networking.k8s.io/v1:HTTPRoute")


def test_a_route_of_a_gateway_leads_every_host_to_the_edge() -> None:
    recorder = routed(gateway={"name": "public", "namespace": "infra", "section": "https"})
    (found,) = recorder.of("kubernetes:gateway.networking.k8s.io/v1:HTTPRoute").values()
    (port,) = recorder.of(SERVICE)["edge"]["spec"]["ports"]

    assert found["spec"] == {
        "parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "https"}],
        "hostnames": ["dify.example.com", "apps.example.com"],
        "rules": [{"backendRefs": [{"name": "edge", "port": port["port"]}]}],
    }


def test_without_a_route_there_is_none() -> None:
    kinds = {one.type.rpartition(":")[2] for one in program().resources}

    assert not kinds & {"Ingress", "HTTPRoute"}


def test_several_pods_of_nginx_count_as_one() -> None:
    recorder = program(replicas={"edge": 3})
    edge = recorder.of(STATEFUL_SET)["nginx"]["spec"]
    (container,) = edge["template"]["spec"]["containers"]
    services = {one["metadata"]["name"] for one in recorder.of(SERVICE).values()}
    (ring,) = (
        text
        for text in recorder.of(SECRET)["nginx-configuration"]["stringData"].values()
        if "upstream ring {" in text
    )

    assert edge["replicas"] == 3
    assert "nginx" not in recorder.of(DEPLOYMENT)
    assert {"nginx", "nginx-0", "nginx-1", "nginx-2"} <= services
    assert "policy-edge-ring" in recorder.of(POLICY)
    assert "for name in nginx-0 nginx-1 nginx-2;" in container["args"][0]
    for name in ("nginx-0", "nginx-1", "nginx-2"):
        assert f"server {name}:8083 max_fails=0;" in ring
    alone = program()
    assert "policy-edge-ring" not in alone.of(POLICY)
    assert "nginx-0" not in str(alone.of(SECRET)["nginx-configuration"])


def test_services_are_reached_by_the_names_in_dify_s_environment() -> None:
    recorder = program()
    names = {one["metadata"]["name"] for one in recorder.of(SERVICE).values()}
    environment = recorder.of(SECRET)["api-environment"]["stringData"]

    assert environment["DB_HOST"] in names
    assert environment["REDIS_HOST"] in names
    assert names == {name for name, one in SERVICES.items() if one.port and name in CHOSEN.services()} | {
        "edge"
    }


def test_policies_come_before_pods() -> None:
    recorder = program()

    assert {
        "policy-default-deny",
        "policy-network-data",
        "policy-outside-app",
        "policy-published-nginx",
    } <= set(recorder.of(POLICY))
    order = [one.name for one in recorder.resources]
    assert order.index("policy-default-deny") < order.index("db-postgres")


def test_console_resources_reach_a_workload_of_the_cluster() -> None:
    admin = program().of(DYNAMIC)["admin"]
    at = Workload.parse(admin["container"])

    assert (at.context, at.namespace, at.kind, at.name) == ("test", "dify-unit", "Deployment", "api")


def test_the_state_has_no_credentials_of_the_cluster() -> None:
    (provider,) = [one for one in program().resources if one.type == "pulumi:providers:kubernetes"]

    assert set(provider.inputs) == {"kubeconfig", "context"}
    assert provider.inputs["kubeconfig"].endswith("/.kube/config")


def test_images_of_a_registry() -> None:
    image = program(registry="r.example:5000/dify").of(DEPLOYMENT)["api"]["spec"]["template"]["spec"][
        "containers"
    ][0]

    assert image["image"].startswith("r.example:5000/dify/dify-kit/standin-api:")


def test_squid_completes_the_short_names_of_services() -> None:
    lines = program().of(SECRET)["ssrf-proxy-files"]["stringData"]["f0"].splitlines()
    on_docker = run_program().of(CONTAINER)["ssrf-proxy"]["uploads"][0]["content"].splitlines()

    assert "dns_defnames on" in lines
    assert "dns_defnames on" not in on_docker


def test_the_services_of_nginx_keep_their_names_in_the_state_with_another_number_of_pods() -> None:
    start = "urn:pulumi:s::dify::dify-kit:tiers:Edge$kubernetes:apps/v1:"

    assert of_other_kind(f"{start}Deployment::nginx") == f"{start}StatefulSet::nginx"
    assert of_other_kind(f"{start}StatefulSet::nginx") == f"{start}Deployment::nginx"
