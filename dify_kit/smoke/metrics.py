"""The last run of the smoke tests as metrics of Prometheus."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dify_kit.smoke.run import Ended

OUTCOMES = ("passed", "failed", "cancelled", "error")
COUNTS = {"passed": "passed", "failed": "failed", "not_tested": "notTested"}


class SmokeMetrics(Collector):
    """Collects the metrics of the last run: a test that no longer exists has none."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._last: Ended | None = None
        self._passed_at = 0.0
        self._runs: Counter[str] = Counter()

    def update(self, ended: Ended) -> None:
        """Take over a run that ended."""
        self._runs[ended.outcome] += 1
        if ended.outcome == "passed":
            self._passed_at = ended.started + ended.seconds
        self._last = ended

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the last run; before the first one ends, the number of runs alone."""
        last, runs = (
            self._last,
            CounterMetricFamily(
                "dify_smoke_runs", "Runs of the smoke tests by outcome", labels=("target", "outcome")
            ),
        )
        for outcome in OUTCOMES:
            runs.add_metric((self._target, outcome), self._runs[outcome])
        yield runs
        if last is not None:
            yield from self._of_run(last)
            yield from self._of_groups(last.results.get("groups", ()))

    def _of_run(self, last: Ended) -> Iterator[Metric]:
        for name, text, value in (
            ("result", "Whether the last run passed (1) or not (0)", float(last.outcome == "passed")),
            ("duration_seconds", "Duration of the last run", last.seconds),
            ("last_run_timestamp_seconds", "When the last run ended", last.started + last.seconds),
            ("last_success_timestamp_seconds", "When a run last passed, 0 for never", self._passed_at),
        ):
            gauge = GaugeMetricFamily(f"dify_smoke_{name}", text, labels=("target",))
            gauge.add_metric((self._target,), value)
            yield gauge

    def _of_groups(self, groups: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
        result = self._gauge("group_result", "Whether a group passed (1) or failed (0)", "group")
        count = self._gauge("tests", "Tests of a group by outcome", "group", "outcome")
        duration = self._gauge("group_duration_seconds", "Duration of a group", "group")
        test = self._gauge("test_result", "Whether a test passed (1) or failed (0)", "group", "test")
        seconds = self._gauge("test_duration_seconds", "Duration of a test", "group", "test")
        for group in groups:
            name = str(group["name"])
            if group["outcome"] in {"passed", "failed"}:
                result.add_metric((self._target, name), float(group["outcome"] == "passed"))
                duration.add_metric((self._target, name), group["seconds"])
            for outcome, member in COUNTS.items():
                count.add_metric((self._target, name, outcome), group[member])
            for one in group["tests"]:
                labels = (self._target, name, str(one["name"]))
                test.add_metric(labels, float(one["outcome"] == "passed"))
                seconds.add_metric(labels, one["seconds"])
        yield from (result, count, duration, test, seconds)

    @staticmethod
    def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"dify_smoke_{name}", text, labels=("target", *labels))
