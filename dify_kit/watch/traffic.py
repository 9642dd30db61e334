"""What nginx counted of its requests, read inside its containers or pods, and the rates of the last minutes."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from dify_kit.containers.docker_host import Container
from dify_kit.errors import KitError
from dify_kit.stack import llm_usage
from dify_kit.watch.report import Rates, Traffic
from infra.catalogue import ports
from infra.catalogue.services import LLM_EDGE, NGINX

URL = f"http://127.0.0.1:{ports.EDGE_STATUS}/metrics"
EDGE = "dify_kit_edge"
# Responses that mean a failure here, and not a mistake of the client.
SERVER_ERRORS = ("5xx", "502", "503", "504")
CLIENT_ERRORS = ("4xx", "401", "429", "499")


def scrape(running: Mapping[str, Iterable[Container]], stack: str) -> dict[str, str]:
    """Return the metrics of each container or pod of nginx, by its name. One that tells none is left out."""
    found: dict[str, str] = {}
    for service in (NGINX, LLM_EDGE):
        for one in running.get(service, ()):
            try:
                found[one.name] = llm_usage.answer_of(one.id, stack, URL)
            except KitError:
                # A revision that does not answer is reported already, and one before these metrics has none.
                continue
    return found


def families(scraped: Mapping[str, str], stack: str) -> Iterator[Metric]:
    """Yield the metrics of all replicas, each sample with the labels `stack` and `replica`."""
    merged: dict[str, Metric] = {}
    for replica, text in scraped.items():
        for family in text_string_to_metric_families(text):
            one = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {"stack": stack, "replica": replica, **sample.labels}
                one.samples.append(sample._replace(labels=labels))
    yield from merged.values()


def traffic(scraped: Mapping[str, str]) -> Traffic | None:
    """Return the requests of all replicas, in the last minutes and since the start; None where none counts them."""
    since: list[float] = []
    seconds: list[float] = []
    recent: dict[str, float] = {}
    total: dict[str, float] = {}
    for text in scraped.values():
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                status = sample.labels.get("status", "")
                match sample.name.removeprefix(f"{EDGE}_"):
                    case "start_timestamp_seconds":
                        since.append(sample.value)
                    case "recent_seconds":
                        seconds.append(sample.value)
                    case "recent_requests":
                        recent[status] = recent.get(status, 0) + sample.value
                    case "requests_total":
                        total[status] = total.get(status, 0) + sample.value
    if not since:
        return None
    return Traffic(
        # The oldest replica: another one may have begun since.
        since=datetime.fromtimestamp(min(since), tz=UTC),
        seconds=int(max(seconds, default=0)),
        recent=_rates(recent),
        total=_rates(total),
    )


def _rates(counts: Mapping[str, float]) -> Rates:
    def of(*statuses: str) -> int:
        return int(sum(counts.get(one, 0) for one in statuses))

    return Rates(
        requests=int(sum(counts.values())),
        client_errors=of(*CLIENT_ERRORS),
        too_many=of("429"),
        closed=of("499"),
        server_errors=of(*SERVER_ERRORS),
    )
