"""Services as Kubernetes objects: pods, workloads, Services, claims, and the graph of network policies."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra.catalogue import ports
from infra.catalogue.releases import RELEASES
from infra.catalogue.service import HealthCheck, Keep, Limits, Mount, Tier
from infra.catalogue.services import SERVICES
from infra.edge.paths import DRAIN_MARK
from infra.edge.ring import replica_names
from infra.platforms.kubernetes import (
    autoscaling,
    certificate,
    gate,
    pods,
    policies,
    queue_scaling,
    routes,
    storage,
    workloads,
)
from infra.platforms.kubernetes.names import dns_label, network_label
from infra.platforms.kubernetes.pods import HostAlias, Live, Parts, PlacedFile
from infra.platforms.kubernetes.storage import Volume
from infra.services.queues import QUEUES, Broker, list_prefix, queues
from infra.services.spec import File, Port, ServiceSpec
from infra.services.specs import networks, specs
from infra.settings.autoscale import Autoscale
from infra.settings.kubernetes import Kubernetes
from infra.settings.routes import Ingress, Routes
from infra.settings.tls import Issuer
from support.configuration import settings
from tests.custom_resources import problems
from tests.unit.test_settings_kubernetes import on_cluster

RELEASE = RELEASES["1.17.1"]
VOLUMES = {
    "app_storage": Volume(name="app_storage", claimed=True),
    "redis": Volume(name="redis", claimed=True),
    "plugin_storage": Volume(name="plugin_storage", claimed=True),
    "edge": Volume(name="edge", claimed=False),
}


def a_spec(name: str = "api", **fields: Any) -> ServiceSpec:
    given: dict[str, Any] = {"image": "api", "networks": ("app",), "limits": Limits(memory=1024)}
    return ServiceSpec(name=name, **given | fields)


def parts(**fields: Any) -> Parts:
    given: dict[str, Any] = {"image": "r.example/image:1", "volumes": VOLUMES}
    return Parts(**given | fields)


def pod(spec: ServiceSpec, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = pods.pod_template("unit", spec, parts(**fields))["spec"]
    return found


def container(spec: ServiceSpec, **fields: Any) -> dict[str, Any]:
    (found,) = pod(spec, **fields)["containers"]
    return dict(found)


def every_spec() -> list[ServiceSpec]:
    stack = settings(on_cluster())
    return [one for tier in Tier for one in specs(tier, stack, RELEASE)]


def test_a_pod_has_no_token_and_no_variables_of_other_services() -> None:
    found = pod(a_spec())

    assert found["automountServiceAccountToken"] is False
    assert found["enableServiceLinks"] is False
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_a_container_has_only_the_rights_of_its_service() -> None:
    found = container(a_spec(capabilities=("CHOWN", "DAC_READ_SEARCH"), user="101", read_only=True))

    assert found["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
        "runAsUser": 101,
        "runAsNonRoot": True,
    }


def test_a_sandbox_keeps_the_default_rights_without_raw_sockets() -> None:
    assert container(a_spec(capabilities=None))["securityContext"]["capabilities"] == {"drop": ["NET_RAW"]}


def test_limits_and_requests() -> None:
    assert container(a_spec(limits=Limits(memory=2048, cpus=1.5)))["resources"] == {
        "limits": {"memory": "2048Mi", "cpu": "1.5"},
        "requests": {"memory": "512Mi", "cpu": "50m"},
    }
    assert pods.resources(Limits(memory=64))["requests"]["memory"] == "32Mi"


def test_commands_reach_the_shell_as_they_are() -> None:
    # Kubernetes replaces $(NAME), and reads $$ as $.
    found = container(a_spec(entrypoint=("sh", "-c"), command=("kill $$ $(cat pid) $HOME",)))

    assert found["command"] == ["sh", "-c"]
    assert found["args"] == ["kill $$$$ $$(cat pid) $$HOME"]


def test_probes_run_the_health_command_and_none_restarts_a_service() -> None:
    health = HealthCheck(command=("curl", "-f", "http://127.0.0.1"), timeout=7)
    found = container(a_spec(health=health, ready_timeout=60))

    assert found["startupProbe"]["exec"] == {"command": ["curl", "-f", "http://127.0.0.1"]}
    # Later than the end of the wait for it.
    assert found["startupProbe"]["periodSeconds"] * found["startupProbe"]["failureThreshold"] >= 60
    assert found["readinessProbe"]["timeoutSeconds"] == 7
    assert "livenessProbe" not in found


def test_variables_come_from_a_secret() -> None:
    assert container(a_spec(), environment="api-env-1")["envFrom"] == [{"secretRef": {"name": "api-env-1"}}]
    assert "envFrom" not in container(a_spec())


def test_files_of_a_service_have_their_modes_and_a_group_that_reads_them() -> None:
    files = (
        File(path="/etc/redis/redis.conf", content="a", mode="0400", owner=999),
        File(path="/etc/redis/password", content="b", mode="0400", owner=999),
    )
    spec = a_spec("redis", files=files, image="redis")
    found = pod(spec, files="redis-files-1")

    assert found["securityContext"]["fsGroup"] == 999
    assert found["volumes"] == [
        {
            "name": "files",
            "secret": {
                "secretName": "redis-files-1",
                "items": [
                    {"key": "f0", "path": "f0", "mode": 0o400},
                    {"key": "f1", "path": "f1", "mode": 0o400},
                ],
            },
        }
    ]
    assert found["containers"][0]["volumeMounts"] == [
        {"name": "files", "mountPath": "/etc/redis/redis.conf", "subPath": "f0", "readOnly": True},
        {"name": "files", "mountPath": "/etc/redis/password", "subPath": "f1", "readOnly": True},
    ]


def test_a_tmpfs_is_memory_of_the_pod() -> None:
    found = pod(a_spec(tmpfs={"/run/edge": "size=64m,mode=0700,uid=101,gid=101"}))

    assert found["volumes"] == [{"name": "tmpfs-0", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}]


def test_every_tmpfs_of_the_catalogue_has_a_size() -> None:
    for spec in every_spec():
        for options in spec.tmpfs.values():
            assert pods._size(options).endswith("Mi"), spec.name


def test_what_outlives_a_pod_is_a_claim_and_the_rest_is_a_directory() -> None:
    kept = storage.volume("postgres", Keep.DATA, shared_class="")
    passing = storage.volume("edge", Keep.EPHEMERAL, shared_class="")

    assert storage.pod_volume(kept) == {
        "name": "volume-postgres",
        "persistentVolumeClaim": {"claimName": "postgres"},
    }
    assert storage.pod_volume(passing) == {"name": "volume-edge", "emptyDir": {}}


@pytest.mark.parametrize(
    ("name", "shared_class", "mode", "storage_class"),
    [
        ("app_storage", "nfs", "ReadWriteMany", "nfs"),
        ("app_storage", "", "ReadWriteOnce", "fast"),
        ("postgres", "nfs", "ReadWriteOnce", "fast"),
    ],
)
def test_only_dify_s_storage_is_on_the_shared_class(
    name: str, shared_class: str, mode: str, storage_class: str
) -> None:
    one = storage.volume(name, Keep.DATA, shared_class=shared_class)
    found = storage.claim(
        one, labels={"a": "b"}, storage_class="fast", shared_class=shared_class, gigabytes=3
    )

    assert found["spec"] == {
        "accessModes": [mode],
        "resources": {"requests": {"storage": "3Gi"}},
        "storageClassName": storage_class,
    }
    # Pulumi waits for no claim: one binds when a pod uses it.
    assert found["metadata"]["annotations"] == {"pulumi.com/skipAwait": "true"}


def test_a_claim_without_a_class_is_of_the_cluster_s_default() -> None:
    found = storage.claim(VOLUMES["redis"], labels={}, storage_class="", shared_class="", gigabytes=1)

    assert "storageClassName" not in found["spec"]


def test_pods_that_share_a_claim_of_one_node_run_on_that_node() -> None:
    mounts = (Mount(volume="app_storage", path="/app/api/storage"),)
    labels = pods.pod_labels("unit", a_spec(mounts=mounts), VOLUMES)
    terms = pod(a_spec(mounts=mounts))["affinity"]["podAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]

    assert [term["labelSelector"]["matchLabels"].items() <= labels.items() for term in terms] == [True]
    shared = {**VOLUMES, "app_storage": Volume(name="app_storage", claimed=True, shared=True)}
    assert "affinity" not in pod(a_spec(mounts=mounts), volumes=shared)


def every_manifest() -> Iterator[dict[str, Any]]:
    """Return every object of a stack, with the longest options that the settings have."""
    shared: dict[str, Any] = {"serviceType": "NodePort", "nodePort": 30080, "imagePullSecret": "login"}
    cluster = settings(on_cluster(**shared)).kubernetes
    assert cluster is not None
    live = Live(directory="/x", revision="abc", secret="s", files=(PlacedFile(path="a/b", mode=0o400),))
    for spec in every_spec():
        volumes = {
            mount.volume: Volume(name=mount.volume, claimed=index == 0)
            for index, mount in enumerate(spec.mounts)
        }
        chosen = parts(
            volumes=volumes,
            environment="e",
            files="f" if spec.files else None,
            pull_secret="login",
            aliases=[HostAlias(address="10.96.0.7", names=("db.example.com",))],
        )
        yield workloads.workload("unit", spec, chosen, replicas=3)
        if spec.mounts and not spec.job:
            own = replace(live, directory=spec.mounts[0].path)
            yield workloads.workload("unit", spec, replace(chosen, live=own), replicas=1)
        yield from filter(
            None,
            (
                workloads.service("unit", spec),
                workloads.edge_service("unit", spec, cluster),
                workloads.disruption_budget("unit", spec, 3),
                policies.published("unit", spec),
                *workloads.replica_services("unit", spec, 3),
            ),
        )
        for one in volumes.values():
            yield storage.claim(one, labels={"a": "b"}, storage_class="c", shared_class="d", gigabytes=1)
    yield autoscaling.autoscaler("unit", "api", Limits(memory=1), Autoscale(least=1, most=3, cpu_percent=70))
    ingress = Ingress(class_name="nginx", annotations={"a": "b"}, tls_secret="c")  # the name of a Secret
    yield from routes.routes("unit", Routes(hosts=("dify.example.com",), ingress=ingress), 80)
    yield policies.namespace("dify-unit", "unit")
    yield from policies.policies("unit", networks(settings(on_cluster()), RELEASE), ring=True)
    yield from certificate.solver_policies("unit", edge=True)
    yield certificate.solver_service("unit")
    yield from filter(None, [queue_scaling.access("unit", BROKER, "keda")])


def plain(value: Any) -> Any:
    """Return a manifest with a word in the place of each Output."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return "an-output" if isinstance(value, pulumi.Output) else value


def test_every_object_has_only_fields_of_the_api() -> None:
    from kubernetes import client  # noqa: PLC0415  # takes seconds

    kinds = {
        "HorizontalPodAutoscaler": client.V2HorizontalPodAutoscaler,
        "Ingress": client.V1Ingress,
        "PodDisruptionBudget": client.V1PodDisruptionBudget,
        "PersistentVolumeClaim": client.V1PersistentVolumeClaim,
        "NetworkPolicy": client.V1NetworkPolicy,
        "StatefulSet": client.V1StatefulSet,
        "Deployment": client.V1Deployment,
        "Namespace": client.V1Namespace,
        "Service": client.V1Service,
        "Job": client.V1Job,
    }
    seen = set()
    for manifest in every_manifest():
        seen.add(manifest["kind"])
        wanted = plain(manifest)
        found = client.ApiClient().sanitize_for_serialization(kinds[manifest["kind"]].from_dict(wanted))

        # The models drop what the API does not have.
        assert found == wanted, manifest["metadata"]["name"]
    assert seen == set(kinds)


def test_kinds_of_workloads() -> None:
    kinds = {spec.name: str(workloads.kind_of(spec)) for spec in every_spec()}

    assert {name for name, kind in kinds.items() if kind == "Job"} == {"init-permissions", "migration"}
    assert {dns_label(name) for name, kind in kinds.items() if kind == "StatefulSet"} == {
        "db-postgres",
        "redis",
        "pgvector",
    }
    assert kinds["api"] == "Deployment"


def test_a_rolling_update_takes_no_pod_away_before_another_one_is_ready() -> None:
    mounts = (Mount(volume="app_storage", path="/app/api/storage"),)
    found = workloads.workload("unit", a_spec(mounts=mounts), parts(), replicas=2)

    assert found["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    pod_spec = found["spec"]["template"]["spec"]
    assert pod_spec["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert pod_spec["terminationGracePeriodSeconds"] == 20 + 5
    (spread,) = pod_spec["topologySpreadConstraints"]
    assert spread["matchLabelKeys"] == ["pod-template-hash"]


def test_several_pods_of_nginx_have_names_by_which_they_reach_each_other() -> None:
    found = plain(workloads.workload("unit", a_spec("nginx"), parts(), replicas=3))
    services = workloads.replica_services("unit", a_spec("nginx"), 3)

    assert (found["kind"], found["spec"]["replicas"]) == ("StatefulSet", 3)
    assert found["spec"]["podManagementPolicy"] == "Parallel"
    assert found["spec"]["updateStrategy"] == {"type": "RollingUpdate"}
    pod_spec = found["spec"]["template"]["spec"]
    assert pod_spec["containers"][0]["lifecycle"] == {
        "preStop": {"exec": {"command": ["sh", "-c", f"touch {DRAIN_MARK}; sleep 5"]}}
    }
    (spread,) = pod_spec["topologySpreadConstraints"]
    assert spread["matchLabelKeys"] == ["controller-revision-hash"]
    assert [one["metadata"]["name"] for one in services] == list(replica_names(3))
    for one in services:
        assert one["spec"]["selector"]["statefulset.kubernetes.io/pod-name"] == one["metadata"]["name"]
        assert [port["port"] for port in one["spec"]["ports"]] == [ports.EDGE_RING]
    assert workloads.replica_services("unit", a_spec("nginx"), 1) == []
    assert workloads.replica_services("unit", a_spec("api"), 3) == []
    alone = workloads.workload("unit", a_spec("nginx"), parts(), replicas=1)
    assert alone["kind"] == "Deployment"


def test_nginx_asks_its_clients_to_close_their_connections_before_it_stops() -> None:
    found = container(a_spec("nginx", image="nginx"))

    assert found["lifecycle"] == {
        "preStop": {"exec": {"command": ["sh", "-c", "touch /run/edge/drain; sleep 5"]}}
    }


def test_the_pod_of_a_data_store_is_replaced_by_readiness_alone() -> None:
    for one in every_spec():
        volumes = {mount.volume: Volume(name=mount.volume, claimed=True) for mount in one.mounts}
        found = workloads.workload("unit", one, parts(volumes=volumes))
        on_delete = found["spec"].get("updateStrategy") == {"type": "OnDelete"}
        assert on_delete == (found["kind"] == "StatefulSet"), one.name


@pytest.mark.parametrize("name", ["plugin-daemon", "worker-beat"])
def test_two_processes_never_share_what_is_for_one(name: str) -> None:
    mounts = (Mount(volume="plugin_storage", path="/app/storage"),) if name == "plugin-daemon" else ()

    found = workloads.workload("unit", a_spec(name, mounts=mounts), parts())

    assert found["spec"]["strategy"] == {"type": "Recreate"}


def test_an_autoscaler_keeps_pods_at_a_share_of_their_limit() -> None:
    chosen = Autoscale(least=2, most=6, cpu_percent=70)
    found = autoscaling.autoscaler("unit", "worker-beat", Limits(memory=1024, cpus=1.5), chosen)

    assert found["spec"]["metrics"] == [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1050m"}},
        }
    ]
    assert found["metadata"]["name"] == "worker-beat"
    # Otherwise KEDA refuses its object while `up` changes from one to the other.
    assert found["metadata"]["annotations"] == {"validations.keda.sh/hpa-ownership": "false"}


BROKER = Broker(
    host="", port=6379, database=1, queues=("dataset", "my-queue"), password="hidden"
)  # of no Redis
QUEUED = Autoscale(least=1, most=8, cpu_percent=70, jobs=10, keda_namespace="keda")


def test_workers_are_scaled_by_the_jobs_that_wait_in_all_queues() -> None:
    found = queue_scaling.scaled_object("unit", "worker", "dify-unit", BROKER, QUEUED)
    signed_in = queue_scaling.authentication("unit", "worker", BROKER, "worker-queue-1")

    assert problems(found) == []
    assert problems(signed_in) == []
    assert found["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "worker",
    }
    assert (found["spec"]["minReplicaCount"], found["spec"]["maxReplicaCount"]) == (1, 8)
    # Names of triggers are those of variables.
    assert found["spec"]["advanced"]["scalingModifiers"] == {
        "formula": "dataset + my_queue",
        "target": "10",
        "metricType": "AverageValue",
    }
    assert [(one["name"], one["metadata"]["listName"]) for one in found["spec"]["triggers"]] == [
        ("dataset", "dataset"),
        ("my_queue", "my-queue"),
    ]
    for one in found["spec"]["triggers"]:
        assert one["authenticationRef"] == {"name": signed_in["metadata"]["name"]}
        assert one["metadata"]["address"] == "redis.dify-unit.svc.cluster.local:6379"
        assert (one["metadata"]["databaseIndex"], one["metadata"]["enableTLS"]) == ("1", "false")
        assert "username" not in one["metadata"]
    assert signed_in["spec"]["secretTargetRef"] == [
        {"parameter": "password", "name": "worker-queue-1", "key": "password"}
    ]
    assert "hidden" not in repr((found, signed_in))


def test_queues_of_an_external_redis_are_read_there() -> None:
    broker = replace(BROKER, host="redis.example.com", port=6380, database=3, user="dify", tls=True, ca="PEM")
    found = queue_scaling.scaled_object("unit", "worker", "dify-unit", broker, QUEUED)
    signed_in = queue_scaling.authentication("unit", "worker", broker, "worker-queue-1")
    metadata = found["spec"]["triggers"][0]["metadata"]

    assert problems(found) == []
    assert metadata["address"] == "redis.example.com:6380"
    assert (metadata["databaseIndex"], metadata["enableTLS"], metadata["username"]) == ("3", "true", "dify")
    assert [one["parameter"] for one in signed_in["spec"]["secretTargetRef"]] == ["password", "ca"]
    assert queue_scaling.credentials(broker) == {"password": "hidden", "ca": "PEM"}
    # It is not behind a policy of this namespace.
    assert queue_scaling.access("unit", broker, "keda") is None


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({}, QUEUES),
        ({"CELERY_QUEUES": "dataset, mail,"}, ("dataset", "mail")),
        ({"CELERY_QUEUES": "dataset", "CELERY_WORKER_QUEUES": "workflow"}, ("workflow",)),
        ({"CELERY_QUEUES": ""}, QUEUES),
    ],
)
def test_the_queues_are_those_of_the_worker(variables: dict[str, str], names: tuple[str, ...]) -> None:
    assert queues(variables) == names


def test_lists_of_a_stack_with_a_prefix_have_it_before_their_names() -> None:
    broker = replace(BROKER, prefix=list_prefix({"REDIS_KEY_PREFIX": "team"}))
    found = queue_scaling.scaled_object("unit", "worker", "dify-unit", broker, QUEUED)

    assert [one["metadata"]["listName"] for one in found["spec"]["triggers"]] == [
        "team:dataset",
        "team:my-queue",
    ]
    assert found["spec"]["advanced"]["scalingModifiers"]["formula"] == "dataset + my_queue"
    assert list_prefix({}) == ""


def test_a_job_runs_once() -> None:
    found = workloads.workload("unit", a_spec("migration", job=True), parts())

    assert found["spec"]["backoffLimit"] == 0
    assert found["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert "lifecycle" not in found["spec"]["template"]["spec"]["containers"][0]


def test_pulumi_waits_for_the_end_of_a_deletion_and_for_no_pod() -> None:
    for spec in every_spec():
        volumes = {mount.volume: Volume(name=mount.volume, claimed=True) for mount in spec.mounts}
        found = workloads.workload("unit", spec, parts(volumes=volumes))

        assert found["metadata"]["annotations"] == {"pulumi.com/waitFor": "jsonpath={.metadata.uid}"}, (
            spec.name
        )


def test_a_service_has_the_ports_by_which_others_reach_it() -> None:
    found = workloads.service("unit", a_spec("gateway"))

    assert found is not None
    assert [port["port"] for port in found["spec"]["ports"]] == [8090, 8091]
    assert workloads.service("unit", a_spec("worker")) is None


def edge(**fields: Any) -> dict[str, Any]:
    cluster = settings(on_cluster(**fields)).kubernetes
    assert isinstance(cluster, Kubernetes)
    published = (
        Port(internal=8080, external=8080, address="127.0.0.1"),
        Port(internal=8443, external=443, address="127.0.0.1"),
    )
    found = workloads.edge_service("unit", a_spec("nginx", ports=published), cluster)
    assert found is not None
    spec: dict[str, Any] = found["spec"]
    return spec


def test_the_edge_is_reached_by_a_service_of_its_own() -> None:
    found = edge(serviceType="NodePort", nodePort=30443)

    assert found["type"] == "NodePort"
    assert found["externalTrafficPolicy"] == "Local"
    assert [(port["port"], port["targetPort"], port.get("nodePort")) for port in found["ports"]] == [
        (8080, 8080, None),
        (443, 8443, 30443),
    ]
    assert "externalTrafficPolicy" not in edge()
    cluster = settings(on_cluster()).kubernetes
    assert cluster is not None
    assert workloads.edge_service("unit", a_spec("api"), cluster) is None


def test_a_drain_takes_one_pod_at_a_time_and_never_waits_for_a_single_one() -> None:
    found = workloads.disruption_budget("unit", a_spec(), 3)

    assert found is not None
    assert found["spec"]["maxUnavailable"] == 1
    assert workloads.disruption_budget("unit", a_spec(), 1) is None


def test_a_live_configuration_is_laid_out_as_on_docker() -> None:
    live = Live(
        directory="/etc/dify-kit/nginx",
        revision="abc",
        secret="edge-1",
        files=(PlacedFile(path="nginx.conf", mode=0o444), PlacedFile(path="tls/key.pem", mode=0o400)),
    )
    spec = a_spec("nginx", user="101", mounts=(Mount(volume="edge", path="/etc/dify-kit/nginx"),))
    found = pod(spec, live=live)

    assert found["volumes"][-1]["secret"]["items"] == [
        {"key": "f0", "path": "nginx.conf", "mode": 0o444},
        {"key": "f1", "path": "tls/key.pem", "mode": 0o400},
    ]
    (link,) = found["initContainers"]
    assert link["command"][:2] == ["ln", "-sfn"]
    assert link["volumeMounts"] == [{"name": "volume-edge", "mountPath": "/etc/dify-kit/nginx"}]
    assert link["securityContext"]["runAsUser"] == 101


def test_a_certificate_that_changes_is_mounted_as_a_whole() -> None:
    found = pod(a_spec("nginx", user="101"), certificate="edge-certificate")

    # nginx's group reads the key, and nobody else.
    assert found["securityContext"]["fsGroup"] == 101
    assert found["volumes"] == [
        {"name": "certificate", "secret": {"secretName": "edge-certificate", "defaultMode": 0o440}}
    ]
    # The kubelet leaves a file of its own (`subPath`) as it was.
    assert found["containers"][0]["volumeMounts"] == [
        {"name": "certificate", "mountPath": "/etc/dify-kit/certificates", "readOnly": True}
    ]


def test_a_certificate_is_requested_for_every_host() -> None:
    hosts = ("dify.example.com", "apps.example.com", "192.0.2.1", "[2001:db8::1]")
    found = certificate.certificate("unit", hosts, Issuer(name="letsencrypt", kind="ClusterIssuer"))

    assert problems(found) == []
    assert found["spec"]["dnsNames"] == ["dify.example.com", "apps.example.com"]
    assert found["spec"]["ipAddresses"] == ["192.0.2.1", "2001:db8::1"]
    assert found["spec"]["issuerRef"] == {
        "group": "cert-manager.io",
        "kind": "ClusterIssuer",
        "name": "letsencrypt",
    }
    # nginx starts before a CA that checks names by HTTP has issued one.
    assert found["metadata"]["annotations"]["cert-manager.io/issue-temporary-certificate"] == "true"


def test_the_schemas_refuse_what_is_no_field() -> None:
    found = certificate.certificate("unit", ("a.example.com",), Issuer(name="a", kind="Issuer"))
    found["spec"] |= {"secret": "a", "dnsNames": "a.example.com", "privateKey": {"rotationPolicy": "Daily"}}
    del found["spec"]["secretName"]

    assert problems(found) == [
        ".spec.secretName is missing",
        ".spec.dnsNames: 'a.example.com' is no array",
        ".spec.privateKey.rotationPolicy: 'Daily' is none of ['Never', 'Always']",
        ".spec.secret is not a field",
    ]


# --- networks ---------------------------------------------------------------------------------------------------------


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def opens(rule: dict[str, Any], port: int) -> bool:
    """Tell whether a rule is of a TCP port."""
    return "ports" not in rule or any(
        one["protocol"] == "TCP" and one["port"] <= port <= one.get("endPort", one["port"])
        for one in rule["ports"]
    )


def may_connect(
    found: list[dict[str, Any]], client: dict[str, str], server: dict[str, str], port: int = 5001
) -> bool:
    """Evaluate the policies as Kubernetes does: allowed when an egress and an ingress rule both allow it."""
    ways = {}
    for way, peer, own, other in (("egress", "to", client, server), ("ingress", "from", server, client)):
        chosen = [one["spec"] for one in found if matches(one["spec"]["podSelector"], own)]
        restricted = any(way.capitalize() in spec["policyTypes"] for spec in chosen)
        rules = [rule for spec in chosen for rule in spec.get(way, ())]
        ways[way] = not restricted or any(
            # A rule without peers is of all of them.
            peer not in rule
            or any(
                "namespaceSelector" not in one and "podSelector" in one and matches(one["podSelector"], other)
                for one in rule[peer]
            )
            for rule in rules
            if opens(rule, port)
        )
    return all(ways.values())


def opened_by_both(found: list[dict[str, Any]], port: int) -> set[str]:
    """Return the policies with both directions that open a port in one of them: kube-router lets it in by either."""
    return {
        one["metadata"]["name"]
        for one in found
        if len(one["spec"]["policyTypes"]) > 1
        for way, peer in (("egress", "to"), ("ingress", "from"))
        for rule in one["spec"].get(way, ())
        if opens(rule, port) and any("namespaceSelector" not in other for other in rule.get(peer, ()))
    }


def outside(found: list[dict[str, Any]], labels: dict[str, str]) -> bool:
    chosen = [one["spec"] for one in found if matches(one["spec"]["podSelector"], labels)]
    return any(
        "ipBlock" in one for spec in chosen for rule in spec.get("egress", ()) for one in rule.get("to", ())
    )


@pytest.mark.parametrize("ring", [False, True])
def test_pods_reach_exactly_those_that_share_a_network_with_them(ring: bool) -> None:
    stack = settings(on_cluster())
    graph = networks(stack, RELEASE)
    found = policies.policies("unit", graph, ring=ring)
    services = [one for tier in Tier for one in specs(tier, stack, RELEASE)]
    claimed = {
        mount.volume: Volume(name=mount.volume, claimed=True) for one in services for mount in one.mounts
    }
    labels = {one.name: pods.pod_labels("unit", one, claimed) for one in services}

    for client in services:
        for server in services:
            shared = bool(set(client.networks) & set(server.networks))
            assert may_connect(found, labels[client.name], labels[server.name]) is shared, (
                client.name,
                server.name,
            )
        open_networks = [network for network in client.networks if not graph[network]]
        assert outside(found, labels[client.name]) is bool(open_networks), client.name
        # What replicas of the edge tell each other is trusted.
        if ring:
            reached = may_connect(found, labels[client.name], labels["nginx"], ports.EDGE_RING)
            assert reached is (client.name == "nginx"), client.name
    others = {SERVICES[one.name].port for one in services} | {
        port for more in workloads.MORE_PORTS.values() for port in more
    }
    assert ports.EDGE_RING not in others
    if ring:
        assert opened_by_both(found, ports.EDGE_RING) == {"edge-ring"}


@pytest.mark.parametrize("replicas", [1, 3])
def test_pods_of_nginx_alone_reach_the_owner_of_the_counts(replicas: int) -> None:
    stack = settings(
        on_cluster({"llm": {"enabled": True}}, replicas={"edge": replicas}),
        {"llmKeys": '{"holysheep": "hs-0123456789-0123456789-wxyz"}'},
    )
    graph = networks(stack, RELEASE)
    found = policies.policies("unit", graph, ring=replicas > 1, owner=True)
    services = [one for tier in Tier for one in specs(tier, stack, RELEASE)]
    claimed = {
        mount.volume: Volume(name=mount.volume, claimed=True) for one in services for mount in one.mounts
    }
    labels = {one.name: pods.pod_labels("unit", one, claimed) for one in services}
    assert "llm-edge" in labels

    for client in services:
        for port in (ports.EDGE_OWNER, ports.EDGE_OWNER_INSIDE):
            reached = may_connect(found, labels[client.name], labels["llm-edge"], port)
            assert reached is (client.name == "nginx"), client.name
        # It has what it needs of the stack, and no way to anything else of it.
        if client.name not in {"gateway", "litellm", "llm-edge"}:
            assert not may_connect(found, labels["llm-edge"], labels[client.name]), client.name
        assert may_connect(found, labels[client.name], labels["nginx"], ports.EDGE_LLM) is (
            "app" in client.networks
        ), client.name
    assert outside(found, labels["llm-edge"])
    assert opened_by_both(found, ports.EDGE_OWNER) == set()


def test_one_pod_at_a_time_owns_the_counts() -> None:
    stack = settings(
        on_cluster({"llm": {"enabled": True}}, replicas={"edge": 3}),
        {"llmKeys": '{"holysheep": "hs-0123456789-0123456789-wxyz"}'},
    )
    found = {one.name: one for one in specs(Tier.EDGE, stack, RELEASE)}
    volumes = {
        mount.volume: Volume(name=mount.volume, claimed=mount.volume == "llm_usage")
        for one in found.values()
        for mount in one.mounts
    }
    owner = workloads.workload("unit", found["llm-edge"], parts(volumes=volumes))
    alone = workloads.workload("unit", found["nginx"], parts(volumes=volumes))

    assert list(found) == ["llm-edge", "nginx"]
    assert (owner["kind"], owner["spec"]["replicas"]) == ("StatefulSet", 1)
    assert owner["spec"]["updateStrategy"] == {"type": "OnDelete"}
    (container_of_owner,) = owner["spec"]["template"]["spec"]["containers"]
    assert container_of_owner["lifecycle"] == {
        "preStop": {"exec": {"command": ["sh", "-c", f"touch {DRAIN_MARK}; sleep 5"]}}
    }
    assert owner["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 35
    # nginx has no claim any more, so an update takes no pod of it away.
    assert alone["spec"]["strategy"]["type"] == "RollingUpdate"
    assert "llm_usage" not in [mount.volume for mount in found["nginx"].mounts]
    assert found["nginx"].after[-1] == "llm-edge"
    (serves,) = [one for one in [workloads.service("unit", found["llm-edge"])] if one]
    assert [one["port"] for one in serves["spec"]["ports"]] == [ports.EDGE_OWNER, ports.EDGE_OWNER_INSIDE]


def test_the_default_is_that_nothing_is_reached() -> None:
    found = policies.policies("unit", {"app": False})
    denied = found[0]["spec"]

    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_a_way_out_leads_to_no_metadata_service() -> None:
    (way_out,) = [
        one for one in policies.policies("unit", {"app": False}) if one["metadata"]["name"] == "outside-app"
    ]
    blocks = [peer["ipBlock"] for rule in way_out["spec"]["egress"] for peer in rule["to"]]

    assert {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]} in blocks
    assert way_out["spec"]["podSelector"] == {"matchLabels": {network_label("app"): "true"}}


def test_published_ports_are_open_to_every_address() -> None:
    spec = a_spec("nginx", ports=(Port(internal=8080, external=80, address="127.0.0.1"),))
    found = policies.published("unit", spec)

    assert found is not None
    assert found["spec"]["ingress"] == [{"ports": [{"port": 8080, "protocol": "TCP"}]}]
    assert policies.published("unit", a_spec()) is None


def test_challenges_reach_the_pods_that_answer_them_and_nothing_else_does() -> None:
    stack = settings(on_cluster())
    found = [
        *policies.policies("unit", networks(stack, RELEASE)),
        *certificate.solver_policies("unit", edge=True),
    ]
    solver = {"acme.cert-manager.io/http01-solver": "true"}
    services = [one for tier in Tier for one in specs(tier, stack, RELEASE)]
    claimed = {
        mount.volume: Volume(name=mount.volume, claimed=True) for one in services for mount in one.mounts
    }

    for one in services:
        labels = pods.pod_labels("unit", one, claimed)
        assert may_connect(found, labels, solver, ports.ACME_SOLVER) is (one.name == "nginx"), one.name
        assert not may_connect(found, labels, solver, 80), one.name
        assert not may_connect(found, solver, labels), one.name
    assert not outside(found, solver)
    # An Ingress of cert-manager needs no way from nginx.
    names = [one["metadata"]["name"] for one in certificate.solver_policies("unit", edge=False)]
    assert names == ["certificate-challenges"]


def test_keda_reaches_redis_and_nothing_else() -> None:
    way_in = queue_scaling.access("unit", BROKER, "keda")
    assert way_in is not None
    ((rule,), chosen) = way_in["spec"]["ingress"], way_in["spec"]["podSelector"]

    assert chosen == {"matchLabels": {"dify-kit.service": "redis"}}
    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}},
    ]
    assert rule["ports"] == [{"port": 6379, "protocol": "TCP"}]
    # The pods of the stack reach each other as before.
    found = [*policies.policies("unit", {"data": True}), way_in]
    redis = {"dify-kit.service": "redis", network_label("data"): "true"}
    assert may_connect(found, {network_label("data"): "true"}, redis, 6379)
    assert not may_connect(found, {network_label("app"): "true"}, redis, 6379)


def test_pod_security_of_the_namespace() -> None:
    labels = policies.namespace("dify-unit", "unit")["metadata"]["labels"]

    assert labels == {"dify-kit.stack": "unit", "pod-security.kubernetes.io/enforce": "baseline"}


# --- the gate of a sandbox -------------------------------------------------------------------------------------------


def run_gate(tmp_path: Path, *answers: str, deadline: int = 5) -> "subprocess.CompletedProcess[str]":
    """Run the script with a curl that answers one after the other, and the last one for ever."""
    count = tmp_path / "count"
    count.write_text("0")
    listed = tmp_path / "answers"
    listed.write_text("".join(f"{one}\n" for one in answers))
    curl = tmp_path / "curl"
    curl.write_text(
        f"#!/bin/sh\nn=$(($(cat {count}) + 1)); echo $n > {count}\n"
        f'line=$(sed -n "${{n}}p" {listed}); [ -n "$line" ] || line=$(tail -1 {listed})\nprintf %s "$line"\n'
    )
    curl.chmod(0o755)
    script = gate.SCRIPT.replace(f"+ {gate.DEADLINE_SECONDS}", f"+ {deadline}")
    return subprocess.run(
        ["/bin/sh", "-c", script],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "KUBERNETES_SERVICE_HOST": "x",
            "KUBERNETES_SERVICE_PORT": "1",
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_gate_opens_after_three_refusals_in_a_row(tmp_path: Path) -> None:
    done = run_gate(
        tmp_path, "0.004100", "0.000000", "0.000000", "0.002000", "0.000000", "0.000000", "0.000000"
    )

    assert done.returncode == 0
    assert (tmp_path / "count").read_text().strip() == "7"


def test_the_gate_stays_closed_where_no_policy_is_enforced(tmp_path: Path) -> None:
    done = run_gate(tmp_path, "0.004100", deadline=1)

    assert done.returncode == 1
    assert "enforces no network policies" in done.stderr


def test_the_gate_stays_closed_without_a_working_curl(tmp_path: Path) -> None:
    done = run_gate(tmp_path, " ")

    assert done.returncode == 1
    assert "curl" in done.stderr


def test_only_sandboxes_have_a_gate() -> None:
    guarded = set()
    for spec in every_spec():
        volumes = {mount.volume: Volume(name=mount.volume, claimed=True) for mount in spec.mounts}
        names = [one["name"] for one in pod(spec, volumes=volumes).get("initContainers", [])]
        guarded |= {spec.name} if gate.NAME in names else set()

    assert {dns_label(name) for name in guarded} == {"sandbox", "local-sandbox"}
