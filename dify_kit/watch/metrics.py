"""A status as metrics of Prometheus."""

import time
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dify_kit.watch import traffic
from dify_kit.watch.report import Service, Status

PREFIX = "dify_stack"


class StackMetrics(Collector):
    """Collects the metrics of the newest status; what it does not know has none."""

    def __init__(self, stack: str) -> None:
        self._stack = stack
        self._status: Status | None = None
        self._at = 0.0
        self._seconds = 0.0

    def update(self, status: Status, seconds: float) -> None:
        """Take over a status that took `seconds` to find."""
        self._status, self._at, self._seconds = status, time.time(), seconds

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; nothing before the first status."""
        status = self._status
        if status is None:
            return
        yield self._value("looked_timestamp_seconds", "When the stack was looked at", self._at)
        yield self._value("look_seconds", "How long that took", self._seconds)
        yield self._value(
            "ok", "Whether the command `status` has no problem (1) or some (0)", float(status.ok)
        )
        yield self._value("problems", "Problems that the command `status` has", len(status.problems))
        info = self._gauge(
            "info", "Release of Dify, image source and version of the kit", "release", "images", "kit"
        )
        info.add_metric((self._stack, status.release, status.images, status.deployed_by or status.kit), 1)
        yield info
        yield from self._of_times(status)
        yield from self._of_services(status.services)
        yield from self._of_configurations(status)
        yield from traffic.families(status.scraped, self._stack)

    def _of_times(self, status: Status) -> Iterator[Metric]:
        if status.address and status.address.answers is not None:
            yield self._value(
                "edge_answers", "Whether the edge answers at its address", float(status.address.answers)
            )
        if one := status.certificate:
            yield self._value(
                "certificate_end_timestamp_seconds", "When the certificate ends", one.ends.timestamp()
            )
        backup = status.last_backup
        yield self._value(
            "backup_timestamp_seconds",
            "When this machine last backed the stack up, 0 for never",
            backup.timestamp() if backup else 0.0,
        )
        if last := status.last_update:
            yield self._value(
                "up_succeeded", "Whether the last `up` succeeded", float(last.result == "succeeded")
            )
            if last.ended:
                yield self._value("up_timestamp_seconds", "When the last `up` ended", last.ended.timestamp())

    def _of_services(self, services: Iterable[Service]) -> Iterator[Metric]:
        well = self._gauge("service_ok", "Whether a service is as it should be", "service")
        restarts = self._gauge("service_restarts", "Restarts of its containers or pods", "service")
        memory = self._gauge("service_memory_bytes", "Memory that it uses", "service")
        limit = self._gauge("service_memory_limit_bytes", "The limit of its memory", "service")
        ready = self._gauge("service_ready_replicas", "Replicas that are ready", "service")
        wanted = self._gauge("service_replicas", "Replicas that are wanted", "service")
        for one in services:
            labels = (self._stack, one.service)
            well.add_metric(labels, float(not one.problem))
            restarts.add_metric(labels, one.restarts)
            if one.memory:
                memory.add_metric(labels, one.memory)
            if one.memory_limit:
                limit.add_metric(labels, one.memory_limit)
            if one.wanted:
                ready.add_metric(labels, one.ready)
                wanted.add_metric(labels, one.wanted)
        yield from (well, restarts, memory, limit, ready, wanted)

    def _of_configurations(self, status: Status) -> Iterator[Metric]:
        current = self._gauge(
            "configuration_current", "Whether a service runs the deployed configuration", "service"
        )
        for name, revision in status.revisions.items():
            current.add_metric((self._stack, name), float(revision.same))
        yield current
        if status.upstreams is not None:
            failures = self._gauge(
                "llm_upstream_failures", "Failures of an upstream in this month", "upstream", "status"
            )
            for name, found in status.upstreams.items():
                for code, times in found.items():
                    failures.add_metric((self._stack, name, code), times)
            yield failures

    def _value(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        gauge = self._gauge(name, text)
        gauge.add_metric((self._stack,), value)
        return gauge

    @staticmethod
    def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=("stack", *labels))
