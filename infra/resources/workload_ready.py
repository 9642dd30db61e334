"""Readiness of a service on Kubernetes as a resource: `infra.resources.ready` for pods.

Pulumi's provider waits ten minutes for a bad image or a crash loop, and says nothing where no pod can be made: the
reason is in an Event then. This resource looks at pods and Events itself, and ends the wait as soon as it is hopeless,
with the reason and the last log lines.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pulumi
from pulumi import dynamic

from infra.engine.cluster import ClusterError
from infra.resources import image_trial
from infra.resources.workload_probe import ClusterProbe, Probe
from infra.resources.workload_state import (
    NO_POD,
    NO_START,
    Plain,
    claims_of,
    failed_job,
    preparing,
    ready,
    told,
    trouble,
    unscheduled,
)

POLL_SECONDS = 1.0
REPORT_EVERY_SECONDS = 10.0
# A pull that failed once may succeed; what stays for this long does not go away by itself.
DOUBT_SECONDS = 4.0
# A class that provisions immediately needs some seconds for a volume, an autoscaler minutes for a node.
UNSCHEDULED_SECONDS = 30.0
SCALING_SECONDS = 600.0
# Pulling an image does not count as starting; Dify's largest is 2 GB.
PULL_SECONDS = 1800.0
SILENCE_SECONDS = 60.0
# Clocks of this machine and of the cluster differ.
CLOCK_SECONDS = 15.0


class NotReadyError(Exception):
    """The service cannot become ready. The message ends with its last log lines."""


class Wait:
    """The wait for one workload."""

    def __init__(self, name: str, probe: Probe, timeout: float, say: Callable[[str], None]) -> None:
        self._name = name
        self._probe = probe
        self._timeout = timeout
        self._say = say
        self._began = self._reported = time.monotonic()
        self._since = time.time() - CLOCK_SECONDS
        # Seconds in which images were pulled.
        self._pulled = 0.0
        # Since when a pod cannot start, none can be made, no node takes one.
        self._doubted: float | None = None
        self._refused: float | None = None
        self._unscheduled: float | None = None
        # Since when the cluster does not answer.
        self._silent: float | None = None
        self._seen = "no pod yet"

    def run(self) -> None:
        """Return when the service is ready. Raises NotReadyError, and ClusterError of a cluster that stays silent."""
        try:
            self._wait()
        finally:
            self._probe.end_trials()

    def _wait(self) -> None:
        while True:
            try:
                if self._over():
                    return
                self._silent = None
            except ClusterError:
                # A busy API server misses a request now and then.
                if self._silent is None:
                    self._silent = time.monotonic()
                if time.monotonic() - self._silent >= SILENCE_SECONDS:
                    raise
            time.sleep(POLL_SECONDS)

    def _over(self) -> bool:
        """Tell whether the service is ready. Raises NotReadyError when it cannot become so."""
        workload = self._probe.workload()
        if workload is None:
            raise NotReadyError(f"{self._name}: it is gone from the cluster")
        if ready(workload):
            return True
        failed = failed_job(workload)
        if failed is None:
            self._look(workload)
        elif failed >= self._since:
            raise self._failure_of_job(workload)
        else:
            # One that an earlier `up` left behind gets another run.
            self._probe.run_again(workload)
        return False

    def _look(self, workload: Plain) -> None:
        for name in self._probe.stuck(workload):
            self._say(f"{self._name}: deleting pod {name}, which cannot start and has an earlier template")
            self._probe.delete(name)
        if (old := self._probe.outdated(workload)) and not self._replaced(workload, old):
            return
        pods = self._probe.pods(workload)
        if preparing_now := any(preparing(pod) for pod in pods):
            self._seen = "its pod waits for its image or its volumes"
        self._check_pods(pods)
        self._check_events(workload, pods)
        if preparing_now and self._pulled < PULL_SECONDS:
            self._pulled += POLL_SECONDS
        waited = time.monotonic() - self._began
        if waited - self._pulled > self._timeout:
            raise self._failure(f"not ready within {waited:.0f} s; {self._seen}", pods)
        if time.monotonic() - self._reported > REPORT_EVERY_SECONDS:
            self._reported = time.monotonic()
            self._say(f"{self._name}: not ready after {waited:.0f} s; {self._seen}")

    def _replaced(self, workload: Plain, old: Plain) -> bool:
        """Delete the pod of an earlier template once its node has the image of the next one; tell whether it did.

        Raises NotReadyError when that cannot be pulled: the pod stays.
        """
        name, trial = str(old["metadata"]["name"]), self._probe.trial(workload, old)
        if trial is None or image_trial.pulled(trial):
            self._doubted = None
            self._say(f"{self._name}: replacing pod {name}")
            self._probe.delete(name)
            return True
        self._seen = f"pod {name} stays until its node has the next image"
        self._pulled += POLL_SECONDS
        why = image_trial.problem(trial)
        if not why:
            self._doubted = None
            if self._pulled >= PULL_SECONDS:
                raise NotReadyError(f"{self._name}: its image was not pulled within {PULL_SECONDS:.0f} s")
        elif self._doubted is None:
            self._doubted = time.monotonic()
        elif time.monotonic() - self._doubted >= DOUBT_SECONDS:
            raise NotReadyError(f"{self._name}: {why}; pod {name} keeps running as before")
        return False

    def _check_pods(self, pods: Sequence[Plain]) -> None:
        """Raise when a pod cannot start."""
        found = next((one for pod in pods if (one := trouble(pod))), None)
        if found is None:
            self._doubted = None
            return
        self._seen = f"pod {found.pod}, container {found.container}: {found.reason}"
        if self._doubted is None:
            self._doubted = time.monotonic()
        if found.final or time.monotonic() - self._doubted >= DOUBT_SECONDS:
            raise self._error(found.reason, found.pod, found.container)

    def _check_events(self, workload: Plain, pods: Sequence[Plain]) -> None:
        """Raise when no pod can be made, or no node takes it."""
        events = self._probe.events()
        names = [str(pod["metadata"]["name"]) for pod in pods]
        nowhere = next((why for pod in pods if (why := unscheduled(pod))), "")
        if nowhere:
            claims = told(events, claims_of(pods), ("ProvisioningFailed",), self._since)
            self._seen = "; ".join(filter(None, [nowhere, claims]))
            if self._unscheduled is None:
                self._unscheduled = time.monotonic()
            scaling = told(events, names, ("TriggeredScaleUp",), self._since)
            patience = SCALING_SECONDS if scaling else UNSCHEDULED_SECONDS
            if time.monotonic() - self._unscheduled >= patience:
                raise NotReadyError(f"{self._name}: no node takes its pod: {self._seen}")
            return
        self._unscheduled = None
        if not pods:
            makers = self._makers(workload, events)
            if why := told(events, makers, (NO_POD,), self._since):
                self._seen = why
                if self._refused is None:
                    self._refused = time.monotonic()
                if time.monotonic() - self._refused >= DOUBT_SECONDS:
                    raise NotReadyError(f"{self._name}: no pod can be made: {why}")
            return
        if why := told(events, names, NO_START, self._since):
            self._seen = why

    @staticmethod
    def _makers(workload: Plain, events: Sequence[Plain]) -> list[str]:
        """Return the names of what makes the pods: the workload, and the ReplicaSets of a Deployment."""
        name = str(workload["metadata"]["name"])
        sets = {
            str(one["involvedObject"].get("name"))
            for one in events
            if one["involvedObject"].get("kind") == "ReplicaSet"
        }
        return [name, *(one for one in sets if one.rpartition("-")[0] == name)]

    def _failure_of_job(self, workload: Plain) -> NotReadyError:
        pods = self._probe.pods(workload)
        codes = [
            str(code)
            for pod in pods
            for one in (pod.get("status") or {}).get("containerStatuses") or []
            if (code := ((one.get("state") or {}).get("terminated") or {}).get("exitCode"))
        ]
        return self._failure(f"exited with code {codes[-1]}" if codes else "failed", pods)

    def _failure(self, reason: str, pods: Sequence[Plain]) -> NotReadyError:
        if not pods:
            return NotReadyError(f"{self._name}: {reason}")
        pod = pods[-1]
        return self._error(reason, pod["metadata"]["name"], pod["spec"]["containers"][0]["name"])

    def _error(self, reason: str, pod: str, container: str) -> NotReadyError:
        lines = self._probe.logs(pod, container) or "(the container logged nothing)"
        return NotReadyError(f"{self._name}: {reason}; last log lines of {pod}, {container}:\n{lines}")


class WorkloadReadyProvider(dynamic.ResourceProvider):
    """Waits for one workload. Pickled by reference: this module must keep its name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Wait; raise with the reason when the service does not get ready."""
        self._wait(props)
        return dynamic.CreateResult(f"{props['service']}-ready", props)

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Wait for the pods of a new template."""
        self._wait(news)
        return dynamic.UpdateResult(news)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.DiffResult:
        """Wait again when the workload is another one, or was changed; a new deadline alone changes nothing.

        An autoscaler changes the workload too: where its pods are ready, there is nothing to wait for.
        """
        if any(olds.get(key) != news.get(key) for key in ("workload", "uid")):
            return dynamic.DiffResult(changes=True)
        generation = news.get("generation")
        changed = olds.get("generation") != generation
        if changed and news.get("autoscaled") and isinstance(generation, int | float):
            found = ClusterProbe(news["workload"]).workload()
            changed = found is None or _generation(found) < generation or not ready(found)
        return dynamic.DiffResult(changes=changed)

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Forget the service when it is gone or not ready, so that `up` waits for it again."""
        found = ClusterProbe(props["workload"]).workload()
        if found is None or not ready(found):
            return dynamic.ReadResult("", {})
        return dynamic.ReadResult(id_, props)

    @staticmethod
    def _wait(props: dict[str, Any]) -> None:
        probe = ClusterProbe(props["workload"])
        Wait(props["service"], probe, float(props["timeout"]), pulumi.log.info).run()


def _generation(workload: Plain) -> float:
    return float(workload["metadata"].get("generation", 0))


class WorkloadReady(dynamic.Resource):
    """Exists when all pods of a service are ready, or its Job has succeeded.

    Inputs: workload (`infra.engine.cluster.Workload` as text), uid and generation of the object, service (name for
    messages), timeout (seconds, without the time that images take), autoscaled (whether the cluster chooses the number
    of pods).
    """

    workload: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        workload: pulumi.Input[str],
        uid: pulumi.Input[str],
        generation: pulumi.Input[float],
        service: str,
        timeout: int,
        autoscaled: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "workload": workload,
            "uid": uid,
            "generation": generation,
            "service": service,
            "timeout": timeout,
            "autoscaled": autoscaled,
        }
        super().__init__(WorkloadReadyProvider(), name, props, opts)
