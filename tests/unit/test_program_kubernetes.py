"""The whole program with `dify:platform kubernetes`, against a recorder: what it declares in the namespace."""

import json
import re
from typing import Any

import pytest

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


def test_keda_chooses_the_number_of_workers() -> None:
    chosen = {"worker": {"min": 2, "max": 6, "jobsPerPod": 10, "kedaNamespace": "autoscaling"}}
    recorder = program(sharedStorageClass="nfs", autoscale=chosen)
    (found,) = recorder.of("kubernetes:keda.sh/v1alpha1:ScaledObject").values()
    (signed_in,) = recorder.of("kubernetes:keda.sh/v1alpha1:TriggerAuthentication").values()
    environment = recorder.of(SECRET)["worker-environment"]["stringData"]
    (peer,) = recorder.of(POLICY)["worker-queue-access"]["spec"]["ingress"][0]["from"]
    trigger = found["spec"]["triggers"][0]["metadata"]

    assert not recorder.of(SCALER)
    assert "replicas" not in recorder.of(DEPLOYMENT)["worker"]["spec"]
    assert (found["spec"]["minReplicaCount"], found["spec"]["maxReplicaCount"]) == (2, 6)
    # The queues are where the worker takes its jobs from, and its password opens them.
    assert environment["CELERY_BROKER_URL"].endswith(f"@redis:6379/{trigger['databaseIndex']}")
    content = recorder.of(SECRET)["worker-queue"]["stringData"]
    assert content == {"password": environment["REDIS_PASSWORD"]}
    assert [one["key"] for one in signed_in["spec"]["secretTargetRef"]] == ["password"]
    assert content["password"] not in repr((found, signed_in))
    assert peer == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "autoscaling"}}}
    assert {name for name, one in recorder.of(DYNAMIC).items() if one.get("autoscaled")} == {"worker-ready"}


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


KEY = "hs-0123456789-0123456789-wxyz"


@pytest.mark.parametrize("replicas", [1, 3])
def test_the_llm_proxy_has_one_owner_of_its_counts(replicas: int) -> None:
    recorder = run_program(
        on_cluster({"llm": {"enabled": True}}, replicas={"edge": replicas}),
        secrets={"llmKeys": json.dumps({"holysheep": KEY})},
    )
    owner = recorder.of(STATEFUL_SET)["llm-edge"]["spec"]["template"]["spec"]
    edge = recorder.of(STATEFUL_SET if replicas > 1 else DEPLOYMENT)["nginx"]["spec"]
    (container,) = edge["template"]["spec"]["containers"]
    texts = {
        name: recorder.of(SECRET)[f"{name}-configuration"]["stringData"].values()
        for name in ("llm-edge", "nginx")
    }

    assert [
        one["persistentVolumeClaim"]["claimName"]
        for one in owner["volumes"]
        if "persistentVolumeClaim" in one
    ]
    assert not [one for one in edge["template"]["spec"]["volumes"] if "persistentVolumeClaim" in one]
    assert [text for text in texts["llm-edge"] if KEY in text]
    assert not [text for text in texts["nginx"] if KEY in text]
    assert [text for text in texts["nginx"] if "server llm-edge:8084 max_fails=0;" in text]
    assert re.search(r"for name in (nginx-\d )*llm-edge;", container["args"][0])
    assert {"policy-llm-edge", "policy-to-llm-edge"} <= set(recorder.of(POLICY))
    assert "llm-edge" in {one["metadata"]["name"] for one in recorder.of(SERVICE).values()}
    order = [one.name for one in recorder.resources]
    assert order.index("llm-edge-ready") < order.index("nginx")


def test_without_the_llm_proxy_there_is_no_owner() -> None:
    assert not [one.name for one in program().resources if "llm-edge" in one.name or "llm_usage" in one.name]


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


CERTIFICATE = "kubernetes:cert-manager.io/v1:Certificate"


def issued(**parts: Any) -> Recorder:
    addresses = {
        "publicUrl": "https://dify.example.com",
        "urls": {"app": "https://apps.example.com"},
        "tls": {"mode": "cert-manager", "issuer": {"name": "letsencrypt"}},
    }
    return program(addresses, **parts)


def test_a_certificate_of_cert_manager_reaches_nginx() -> None:
    recorder = issued()
    (found,) = recorder.of(CERTIFICATE).values()
    pod = recorder.of(DEPLOYMENT)["nginx"]["spec"]["template"]["spec"]
    (script,) = pod["containers"][0]["args"]
    waits = {name: one["whole"] for name, one in recorder.of(DYNAMIC).items() if "whole" in one}

    assert found["spec"]["dnsNames"] == ["dify.example.com", "apps.example.com"]
    assert {"name": "certificate", "secret": {"secretName": "edge-certificate", "defaultMode": 0o440}} in pod[
        "volumes"
    ]
    # nginx reloads when the kubelet has changed the files.
    assert "readlink /etc/dify-kit/certificates/..data;" in script
    # Its pods start with what there is, and `up` waits for the issuer's.
    assert waits == {"certificate-secret": False, "certificate-ready": True}
    assert {"policy-certificate-challenges", "policy-certificate-challenges-edge"} <= set(recorder.of(POLICY))
    assert recorder.of(SERVICE)["certificate-challenges"]["spec"]["clusterIP"] == "None"
    # Only nginx has the key.
    others = [one for name, one in recorder.of(DEPLOYMENT).items() if name != "nginx"]
    assert "edge-certificate" not in repr(others)


def test_several_pods_of_nginx_watch_the_certificate() -> None:
    edge = issued(replicas={"edge": 3}).of(STATEFUL_SET)["nginx"]["spec"]["template"]["spec"]
    (script,) = edge["containers"][0]["args"]

    assert script.index("for name in nginx-0") < script.index("readlink") < script.index("exec nginx")


def test_without_an_issuer_there_is_no_certificate_to_wait_for() -> None:
    recorder = program()

    assert not recorder.of(CERTIFICATE)
    assert not [name for name in recorder.of(POLICY) if "challenges" in name]
    assert (
        "readlink"
        not in recorder.of(DEPLOYMENT)["nginx"]["spec"]["template"]["spec"]["containers"][0]["args"][0]
    )


def test_challenges_for_an_ingress_reach_the_pods_that_answer_them() -> None:
    annotations = {"cert-manager.io/cluster-issuer": "letsencrypt"}
    recorder = routed(ingress={"className": "nginx", "tlsSecret": "dify-tls", "annotations": annotations})

    assert "policy-certificate-challenges" in recorder.of(POLICY)
    assert "policy-certificate-challenges-edge" not in recorder.of(POLICY)


def test_a_load_balancer_with_the_proxy_protocol_has_ports_of_its_own() -> None:
    annotation = {"service.beta.kubernetes.io/aws-load-balancer-proxy-protocol": "*"}
    recorder = program(
        {
            "proxyProtocol": True,
            "trustedProxies": ["10.0.0.0/16"],
            "consoleAllowFrom": ["203.0.113.0/24"],
            "tls": {"mode": "selfsigned"},
        },
        serviceType="LoadBalancer",
        # The load balancer tells the addresses of clients.
        externalTrafficPolicy="Cluster",
        serviceAnnotations=annotation,
    )
    edge, inside = recorder.of(SERVICE)["edge"], recorder.of(SERVICE)["nginx"]
    (rule,) = recorder.of(POLICY)["policy-published-nginx"]["spec"]["ingress"]

    assert annotation.items() <= edge["metadata"]["annotations"].items()
    assert [port["targetPort"] for port in edge["spec"]["ports"]] == [8086, 8087]
    # From outside of the stack there is no way around the protocol.
    assert [one["port"] for one in rule["ports"]] == [8086, 8087]
    assert 8080 in [port["port"] for port in inside["spec"]["ports"]]
