"""Readiness on Kubernetes: what ends the wait, how soon, and with which reason."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from infra.engine.cluster import ClusterError, Workload
from infra.engine.job_again import again
from infra.resources import image_trial, workload_ready
from infra.resources.workload_ready import NotReadyError, Wait
from infra.resources.workload_state import ready

BEGAN = 1_800_000_000.0
Plain = Mapping[str, Any]


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return self.passed

    def time(self) -> float:
        return BEGAN + self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(workload_ready, "time", clock)
    return clock


def moment(seconds: float = 0.0) -> str:
    return datetime.fromtimestamp(BEGAN + seconds, UTC).isoformat()


def deployment(**status: Any) -> Plain:
    return {
        "kind": "Deployment",
        "metadata": {"name": "api", "generation": 2, "uid": "u"},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 2, **status},
    }


READY = deployment(replicas=2, updatedReplicas=2, availableReplicas=2)
WAITING = deployment(replicas=2, updatedReplicas=2, availableReplicas=0)


def job(*, failed: float | None = None, succeeded: int = 0) -> Plain:
    conditions = (
        [] if failed is None else [{"type": "Failed", "status": "True", "lastTransitionTime": moment(failed)}]
    )
    return {
        "kind": "Job",
        "metadata": {"name": "migration", "generation": 1, "uid": "u"},
        "spec": {},
        "status": {"succeeded": succeeded, "conditions": conditions},
    }


def pod(
    *,
    waiting: str = "",
    message: str = "",
    code: int | None = None,
    restarts: int = 0,
    init: bool = False,
    **rest: Any,
) -> Plain:
    state: dict[str, Any] = (
        {"waiting": {"reason": waiting, "message": message}} if waiting else {"running": {}}
    )
    last = {} if code is None else {"terminated": {"exitCode": code, **rest.pop("terminated", {})}}
    status = {"name": "api", "state": state, "lastState": last, "restartCount": restarts}
    return {
        "metadata": {"name": "api-1"},
        "spec": {
            "containers": [{"name": "api"}],
            "volumes": [{"persistentVolumeClaim": {"claimName": "app-storage"}}],
        },
        "status": {"initContainerStatuses" if init else "containerStatuses": [status], **rest},
    }


def event(reason: str, message: str, name: str, kind: str = "Pod", at: float = 0.0) -> Plain:
    return {
        "reason": reason,
        "message": message,
        "involvedObject": {"name": name, "kind": kind},
        "lastTimestamp": moment(at),
    }


class FakeProbe:
    """Shows one state after the other, and the last one for ever."""

    def __init__(
        self,
        *workloads: Plain | None,
        pods: Sequence[Plain] = (),
        events: Sequence[Plain] = (),
        stuck: Sequence[str] = (),
        outdated: Plain | None = None,
        trials: Sequence[Plain | None] = (None,),
    ) -> None:
        self._workloads = list(workloads)
        self._pods, self._events = list(pods), list(events)
        self._stuck = list(stuck)
        self._outdated, self._trials = outdated, list(trials)
        self.trials_ended = 0
        self.deleted: list[str] = []
        self.reruns = 0

    def workload(self) -> Plain | None:
        return self._workloads.pop(0) if len(self._workloads) > 1 else self._workloads[0]

    def pods(self, workload: Plain) -> list[Plain]:
        del workload
        return self._pods

    def stuck(self, workload: Plain) -> list[str]:
        del workload
        return [one for one in self._stuck if one not in self.deleted]

    def outdated(self, workload: Plain) -> Plain | None:
        del workload
        gone = self._outdated is None or self._outdated["metadata"]["name"] in self.deleted
        return None if gone else self._outdated

    def trial(self, workload: Plain, pod: Plain) -> Plain | None:
        del workload, pod
        return self._trials.pop(0) if len(self._trials) > 1 else self._trials[0]

    def end_trials(self) -> None:
        self.trials_ended += 1

    def events(self) -> list[Plain]:
        return self._events

    def logs(self, pod: str, container: str) -> str:
        return f"what {container} of {pod} wrote"

    def delete(self, pod: str) -> None:
        self.deleted.append(pod)

    def run_again(self, workload: Plain) -> None:
        del workload
        self.reruns += 1


def wait(probe: FakeProbe, timeout: float = 120) -> str:
    """Return why the wait failed; empty when the service got ready."""
    try:
        Wait("api", probe, timeout, lambda _: None).run()
    except NotReadyError as problem:
        return str(problem)
    return ""


def test_the_wait_ends_when_all_pods_are_ready(clock: Clock) -> None:
    assert wait(FakeProbe(WAITING, WAITING, READY, pods=[pod()])) == ""
    assert clock.passed < 5


@pytest.mark.parametrize(
    "workload",
    [
        deployment(observedGeneration=1, replicas=2, updatedReplicas=2, availableReplicas=2),
        deployment(replicas=3, updatedReplicas=2, availableReplicas=3),
        deployment(replicas=2, updatedReplicas=1, availableReplicas=2),
        deployment(),
        {**deployment(readyReplicas=2, updatedReplicas=0), "kind": "StatefulSet"},
        job(),
    ],
)
def test_pods_of_an_earlier_template_do_not_count(workload: Plain) -> None:
    assert not ready(workload)


def test_ready_workloads() -> None:
    assert ready(READY)
    assert ready(job(succeeded=1))
    assert ready({**deployment(readyReplicas=2, updatedReplicas=2), "kind": "StatefulSet"})


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError"])
def test_an_image_that_cannot_be_pulled_ends_the_wait_within_seconds(clock: Clock, reason: str) -> None:
    problem = wait(FakeProbe(WAITING, pods=[pod(waiting=reason, message="no such image x:1")]))

    assert f"{reason}: no such image x:1" in problem
    assert clock.passed <= 10


def test_a_pull_that_fails_once_does_not_end_the_wait(clock: Clock) -> None:
    probe = FakeProbe(WAITING, WAITING, READY, pods=[pod(waiting="ErrImagePull", message="try again")])

    assert wait(probe) == ""
    assert clock.passed < 4


@pytest.mark.parametrize(
    "crashed", [pod(waiting="CrashLoopBackOff", code=3, restarts=1), pod(code=3, restarts=2)]
)
def test_a_crash_loop_ends_the_wait_with_the_last_log_lines(clock: Clock, crashed: Plain) -> None:
    problem = wait(FakeProbe(WAITING, pods=[crashed]))

    assert problem == "api: exited with code 3; last log lines of api-1, api:\nwhat api of api-1 wrote"
    assert clock.passed <= 2


def test_one_restart_may_be_the_last(clock: Clock) -> None:
    assert wait(FakeProbe(WAITING, WAITING, READY, pods=[pod(code=1, restarts=1)])) == ""
    assert clock.passed < 5


def test_a_gate_that_fails_closed_ends_the_wait(clock: Clock) -> None:
    assert "exited with code 1" in wait(FakeProbe(WAITING, pods=[pod(code=1, restarts=1, init=True)]))
    assert clock.passed <= 2


def test_too_little_memory_is_named(clock: Clock) -> None:
    killed = pod(waiting="CrashLoopBackOff", code=137, restarts=2, terminated={"reason": "OOMKilled"})

    assert "more memory than its limit" in wait(FakeProbe(WAITING, pods=[killed]))
    assert clock.passed <= 2


def test_a_pod_that_the_cluster_refuses_ends_the_wait_with_the_event(clock: Clock) -> None:
    refused = event("FailedCreate", 'violates PodSecurity "baseline"', "api-7d9", "ReplicaSet")

    assert 'no pod can be made: FailedCreate: violates PodSecurity "baseline"' in wait(
        FakeProbe(WAITING, events=[refused])
    )
    assert clock.passed <= 10


def test_events_of_others_and_of_earlier_runs_do_not_count(clock: Clock) -> None:
    events = [
        event("FailedCreate", "of another service", "api-websocket-7d9", "ReplicaSet"),
        event("FailedCreate", "an hour ago", "api-7d9", "ReplicaSet", at=-3600),
    ]

    assert "no pod yet" in wait(FakeProbe(WAITING, events=events), timeout=30)
    assert clock.passed > 30


UNSCHEDULABLE = pod(
    conditions=[
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/2 nodes: no memory",
        }
    ]
)


def test_a_pod_that_no_node_takes_ends_the_wait(clock: Clock) -> None:
    claim = event("ProvisioningFailed", "no such class", "app-storage", "PersistentVolumeClaim")
    problem = wait(FakeProbe(WAITING, pods=[UNSCHEDULABLE], events=[claim]), timeout=600)

    assert "0/2 nodes: no memory; ProvisioningFailed: no such class" in problem
    assert clock.passed <= 40


def test_an_autoscaler_gets_time_for_a_node(clock: Clock) -> None:
    scaling = event("TriggeredScaleUp", "pod triggered scale-up", "api-1")
    probe = FakeProbe(*[WAITING] * 100, READY, pods=[UNSCHEDULABLE], events=[scaling])

    assert wait(probe, timeout=600) == ""
    assert clock.passed >= 90


def test_pulling_an_image_does_not_count_as_starting(clock: Clock) -> None:
    pulling = pod(waiting="ContainerCreating")

    assert wait(FakeProbe(*[WAITING] * 300, READY, pods=[pulling]), timeout=60) == ""
    assert clock.passed >= 290


def test_a_service_that_never_gets_healthy_is_named_with_what_its_probe_said(clock: Clock) -> None:
    unhealthy = event("Unhealthy", "Startup probe failed: connection refused", "api-1")
    problem = wait(FakeProbe(WAITING, pods=[pod()], events=[unhealthy]), timeout=60)

    assert "not ready within" in problem
    assert "Startup probe failed: connection refused" in problem
    assert "what api of api-1 wrote" in problem
    assert clock.passed < 70


def test_a_workload_that_is_gone_ends_the_wait(clock: Clock) -> None:
    assert "gone from the cluster" in wait(FakeProbe(None))
    assert clock.passed == 0


def test_a_failed_job_is_reported_with_its_exit_code(clock: Clock) -> None:
    ended = {
        "metadata": {"name": "migration-x"},
        "spec": {"containers": [{"name": "migration"}]},
        "status": {"containerStatuses": [{"name": "migration", "state": {"terminated": {"exitCode": 4}}}]},
    }
    problem = wait(FakeProbe(job(), job(failed=1), pods=[ended]))

    assert problem.startswith("api: exited with code 4; last log lines of migration-x")
    assert clock.passed <= 2


def test_a_job_that_failed_in_an_earlier_run_runs_again(clock: Clock) -> None:
    probe = FakeProbe(job(failed=-3600), job(), job(succeeded=1))

    assert wait(probe) == ""
    assert probe.reruns == 1
    assert clock.passed < 5


def test_a_stuck_pod_of_an_earlier_template_is_deleted_once(clock: Clock) -> None:
    probe = FakeProbe(WAITING, WAITING, READY, pods=[pod()], stuck=["redis-0"])

    assert wait(probe) == ""
    assert probe.deleted == ["redis-0"]
    assert clock.passed < 5


def test_a_data_store_is_replaced_once_its_node_has_the_image(clock: Clock) -> None:
    trials = [pod(waiting="ContainerCreating")] * 300 + [pod()]
    probe = FakeProbe(*[WAITING] * 305, READY, pods=[pod()], outdated=pod(), trials=trials)

    assert wait(probe, timeout=60) == ""
    assert probe.deleted == ["api-1"]
    assert probe.trials_ended == 1
    assert clock.passed >= 300


def test_a_data_store_with_the_same_image_is_replaced_immediately(clock: Clock) -> None:
    probe = FakeProbe(WAITING, WAITING, READY, pods=[pod()], outdated=pod())

    assert wait(probe) == ""
    assert probe.deleted == ["api-1"]
    assert clock.passed < 5


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_a_data_store_stays_where_its_next_image_cannot_be_pulled(clock: Clock, reason: str) -> None:
    probe = FakeProbe(WAITING, pods=[pod()], outdated=pod(), trials=[pod(waiting=reason, message="no x:1")])

    assert wait(probe) == f"api: {reason}: no x:1; pod api-1 keeps running as before"
    assert probe.deleted == []
    assert probe.trials_ended == 1
    assert clock.passed <= 10


def test_a_pull_that_never_ends_is_named(clock: Clock) -> None:
    probe = FakeProbe(WAITING, pods=[pod()], outdated=pod(), trials=[pod(waiting="ContainerCreating")])

    assert "not pulled within 1800 s" in wait(probe)
    assert probe.deleted == []
    assert clock.passed < 2000


STATEFUL = {
    "metadata": {"name": "redis", "uid": "u", "labels": {"dify-kit.stack": "a"}},
    "spec": {
        "template": {
            "spec": {
                "serviceAccountName": "dify",
                "securityContext": {"fsGroup": 999},
                "imagePullSecrets": [{"name": "login"}],
                "containers": [{"name": "redis", "image": "r/redis:2", "securityContext": {"a": 1}}],
            }
        }
    },
}


def test_a_trial_has_the_image_the_node_and_the_login_of_the_next_pod_and_ends() -> None:
    running = {"spec": {"nodeName": "node2", "containers": [{"image": "r/redis:1"}]}}

    assert image_trial.needed(STATEFUL, running)
    assert not image_trial.needed(STATEFUL, {"spec": {"containers": [{"image": "r/redis:2"}]}})
    trial = image_trial.manifest(STATEFUL, running, "redis-5d")
    spec = trial["spec"]
    assert (spec["nodeName"], spec["imagePullSecrets"]) == ("node2", [{"name": "login"}])
    assert [one["image"] for one in spec["containers"]] == ["r/redis:2"]
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    # No Service and no policy of the stack selects it, and it goes with the workload.
    assert trial["metadata"]["labels"] == {"dify-kit.trial": "redis-5d", "dify-kit.stack": "a"}
    assert trial["metadata"]["ownerReferences"][0]["uid"] == "u"


@pytest.mark.parametrize(
    ("trial", "there"),
    [
        (pod(), True),
        # The image has no such program: it was pulled all the same.
        (pod(waiting="CreateContainerError"), True),
        (pod(waiting="ContainerCreating"), False),
        (pod(waiting="ImagePullBackOff"), False),
        ({"status": {}}, False),
    ],
)
def test_an_image_is_there_when_its_container_was_made(trial: Plain, there: bool) -> None:
    assert image_trial.pulled(trial) is there


def test_a_job_is_made_again_as_it_was() -> None:
    ran = {
        "metadata": {"name": "m", "uid": "1", "resourceVersion": "2", "labels": {"a": "b"}},
        "spec": {
            "backoffLimit": 0,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "1"}},
            "template": {
                "metadata": {
                    "labels": {
                        "dify-kit.service": "m",
                        "controller-uid": "1",
                        "job-name": "m",
                        "batch.kubernetes.io/job-name": "m",
                    }
                },
                "spec": {"containers": []},
            },
        },
        "status": {"failed": 1},
    }

    assert again(ran) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "m", "labels": {"a": "b"}},
        "spec": {
            "backoffLimit": 0,
            "template": {"metadata": {"labels": {"dify-kit.service": "m"}}, "spec": {"containers": []}},
        },
    }


def test_a_workload_is_the_same_after_its_text() -> None:
    one = Workload(
        kubeconfig="/home/me/.kube/my config",
        context="arn:aws:eks:eu/cluster",
        namespace="dify-a",
        kind="Deployment",
        name="api",
    )

    assert Workload.parse(str(one)) == one


@pytest.mark.parametrize("text", ["", "dify-unit-api", "kubernetes://a/b", "docker://a/b/c/d?kubeconfig=x"])
def test_other_texts_name_no_workload(text: str) -> None:
    with pytest.raises(ValueError, match="names no workload"):
        Workload.parse(text)


class Silent(FakeProbe):
    """A cluster that does not answer for a number of requests."""

    def __init__(self, times: int) -> None:
        super().__init__(READY)
        self._times = times

    def workload(self) -> Plain | None:
        self._times -= 1
        if self._times >= 0:
            raise ClusterError("it does not answer", "start it")
        return super().workload()


def test_a_busy_api_server_does_not_end_the_wait(clock: Clock) -> None:
    assert wait(Silent(20)) == ""
    assert clock.passed >= 20


def test_a_cluster_that_stays_silent_ends_the_wait(clock: Clock) -> None:
    with pytest.raises(ClusterError, match="does not answer"):
        wait(Silent(10_000))
    assert clock.passed <= 70


PROPS = {"workload": "kubernetes://a/b/Deployment/api", "uid": "u", "generation": 2.0}


@pytest.mark.parametrize(
    ("autoscaled", "found", "changes"),
    [
        (True, deployment(replicas=2, updatedReplicas=2, availableReplicas=2), False),
        (True, WAITING, True),
        # The controller has not seen the new template.
        (True, {**READY, "metadata": {**READY["metadata"], "generation": 1}}, True),
        (True, None, True),
        (False, READY, True),
    ],
)
def test_an_autoscaler_s_change_is_none_of_the_stack(
    monkeypatch: pytest.MonkeyPatch, autoscaled: bool, found: Plain | None, changes: bool
) -> None:
    probe = type("Probe", (), {"__init__": lambda _self, _at: None, "workload": lambda _self: found})
    monkeypatch.setattr(workload_ready, "ClusterProbe", probe)
    before = {**PROPS, "generation": 1.0, "autoscaled": autoscaled}

    answer = workload_ready.WorkloadReadyProvider().diff("id", before, {**PROPS, "autoscaled": autoscaled})

    assert answer.changes is changes


def test_another_workload_is_waited_for() -> None:
    provider = workload_ready.WorkloadReadyProvider()

    assert provider.diff("id", PROPS, {**PROPS, "uid": "v"}).changes
    assert not provider.diff("id", PROPS, dict(PROPS)).changes
