"""Running an app's graph: by the worker, which publishes the events, or in api; beat makes the worker clean up."""

import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
import yaml
from celery import Celery
from celery.signals import setup_logging

from dify_standin import chat_app, knowledge, llm_node, nodes, store
from dify_standin.answers import Answers
from dify_standin.config import integer, text
from dify_standin.dialect import Dialect, dialect
from dify_standin.events import NodeEvents, workflow_finished, workflow_started
from dify_standin.graph import Graph
from dify_standin.llm_node import NodeResult
from dify_standin.usage import Usage

Event = dict[str, Any]
LOG = logging.getLogger("runs")
EVENTS_TTL = 600
QUEUE = "workflow"
MAX_SLEEP = 600.0
# A real node takes about 30 ms at the least: it is written to the database twice.
NODE_SECONDS = 0.01
OUTSIDE = {"code": nodes.run_code, "http-request": nodes.run_http}
CLEAN_EVERY_SECONDS = 300.0

celery = Celery("dify-stand-in", broker=text("CELERY_BROKER_URL") or None)
if text("CELERY_BROKER_URL").startswith("rediss://"):
    # As Dify does: the broker's certificate is verified as that of REDIS_*.
    celery.conf.update(broker_use_ssl=store.redis_tls())
celery.conf.update(
    task_default_queue=QUEUE,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"socket_connect_timeout": 3, "socket_timeout": 30},
    worker_hijack_root_logger=False,
    beat_schedule={"clean": {"task": "clean_expired", "schedule": CLEAN_EVERY_SECONDS}},
    beat_schedule_filename="/tmp/celerybeat-schedule",  # noqa: S108  # the container's own
    timezone="UTC",
)


@setup_logging.connect
def _plain_logging(**_: object) -> None:
    logging.basicConfig(
        level=text("LOG_LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )


class RunError(Exception):
    """An app's graph failed; the message goes to the caller."""


def events_key(task_id: str) -> str:
    """Return the Redis list through which a run's events travel."""
    return f"standin:events:{task_id}"


@celery.task(name="clean_expired")
def clean_expired() -> int:
    """Forget active requests whose api process died without saying so."""
    cache = store.cache()
    removed = 0
    for key in cache.scan_iter("standin:active:*"):
        removed += int(cache.zremrangebyscore(key, 0, time.time() - EVENTS_TTL))
    return removed


@celery.task(name="run_app")
def run_app(run: dict[str, Any]) -> None:
    """Run an app and publish each event; the last one ends the stream."""
    cache = store.cache()
    key = events_key(run["task_id"])
    for event in events(run):
        with cache.pipeline() as pipe:
            pipe.rpush(key, json.dumps(event))
            pipe.expire(key, EVENTS_TTL)
            pipe.execute()


def events(run: dict[str, Any]) -> Iterator[Event]:
    """Run an app here and yield each event; the last one is `_end` with the run's status."""
    cache = store.cache()
    spent: Event = {}
    try:
        described = yaml.safe_load(run["dsl"])
        execute = _execute if "workflow" in described else chat_app.execute
        for event in execute(run, described):
            if event["event"] == "_spent":
                spent = {name: value for name, value in event.items() if name != "event"}
                continue
            yield event
            if cache.exists(f"standin:stop:{run['task_id']}"):
                yield {"event": "_end", "status": "stopped", **spent}
                return
    except llm_node.MissingModelError as problem:
        yield {"event": "_end", "status": "failed", "error": str(problem), "unbegun": True}
    except (RunError, nodes.NodeError) as problem:
        yield {"event": "_end", "status": "failed", "error": str(problem)}
    except Exception:
        # Without an end a stream would wait for the longest time that an app may take.
        LOG.exception("a run failed")
        yield {"event": "_end", "status": "failed", "error": "Internal Server Error, please contact support."}
    else:
        yield {"event": "_end", "status": "succeeded", **spent}


def _directives(query: str) -> Callable[[], None]:
    """Return what happens before the answer: `/sleep N` waits N seconds, `/fail TEXT` fails with TEXT."""
    word, _, rest = query.partition(" ")

    def act() -> None:
        if word == "/fail":
            raise RunError(rest or "the query asked for a failure")
        if word == "/sleep":
            with contextlib.suppress(ValueError):
                time.sleep(min(MAX_SLEEP, max(0.0, float(rest))))

    return act


def _execute(run: dict[str, Any], described: dict[str, Any]) -> Iterator[Event]:
    """Run a graph. The event `_spent` says what its models used; it goes to no caller."""
    parts = described["workflow"]["graph"]
    graph = Graph(parts)
    callable_models = llm_node.models_of(parts["nodes"])
    speech, begun = dialect(), time.monotonic()
    query = str(run["system"].get("sys.query", ""))
    ahead = deque(graph.path(graph.start))
    answers = Answers(ahead, query)
    begin = graph.start or ""
    variables: dict[str, Any] = {**run["system"], **{f"{begin}.{k}": v for k, v in run["inputs"].items()}}
    outputs: dict[str, Any] = {}
    usage: Usage | None = None
    resources: list[dict[str, Any]] = []
    yield workflow_started(run, speech)
    _directives(str(run["inputs"].get("query", query)))()
    if speech.speaks_first:
        yield from answers.known(variables)
    steps = 0
    while ahead:
        node, steps = ahead.popleft(), steps + 1
        if steps > integer("WORKFLOW_MAX_EXECUTION_STEPS", 500):
            raise RunError("Max steps reached.")
        events = NodeEvents(run, node)
        yield events.started()
        time.sleep(NODE_SECONDS)
        yield from answers.rest_of(node["id"], variables)
        if node["data"]["type"] == "llm":
            done = yield from llm_node.run(node, callable_models[node["id"]], variables, run, answers)
        else:
            done = _run_node(run, node, variables, answers, speech)
        result = done.outputs
        variables |= {f"{node['id']}.{name}": value for name, value in result.items()}
        yield from answers.known(variables)
        yield events.finished(done.inputs, result, done.process_data, done.metadata)
        if done.usage:
            usage = usage.plus(done.usage) if usage else done.usage
            resources += done.resources
        if node["data"]["type"] == "if-else":
            branch = graph.path(graph.following(node["id"], result["selected_case_id"]))
            ahead += branch
            answers.add(branch, query)
            yield from answers.known(variables)
        if node["data"]["type"] in {"end", "answer"}:
            outputs |= result
    if usage:
        yield {"event": "_spent", "usage": usage.json(), "resources": resources}
    tokens = usage.total_tokens if usage else 0
    yield workflow_finished(run, outputs, steps, time.monotonic() - begun, tokens)


def _inputs(
    run: dict[str, Any], node: dict[str, Any], variables: dict[str, Any], speech: Dialect
) -> dict[str, Any]:
    """Return what a node takes, as its events show it."""
    data = node["data"]
    if data["type"] == "start":
        if not speech.system_in_start:
            return dict(run["inputs"])
        clock = {} if "sys.query" in run["system"] else {"sys.timestamp": run["created_at"]}
        return {**run["inputs"], **run["system"], **clock}
    selected = data.get("outputs", []) if data["type"] == "end" else data.get("variables", [])
    if not isinstance(selected, list):
        return {}
    return {
        item["variable"]: variables.get(".".join(item["value_selector"]))
        for item in selected
        if "value_selector" in item
    }


def _run_node(
    run: dict[str, Any], node: dict[str, Any], variables: dict[str, Any], answers: Answers, speech: Dialect
) -> NodeResult:
    """Run a node that leaves its outputs in one piece. Raises RunError and NodeError."""
    if node["data"]["type"] == "knowledge-retrieval":
        return knowledge.run_node(node["data"], variables)
    inputs = _inputs(run, node, variables, speech)
    return NodeResult(inputs=inputs, outputs=_outputs(node, inputs, variables, answers))


def _outputs(
    node: dict[str, Any], inputs: dict[str, Any], variables: dict[str, Any], answers: Answers
) -> dict[str, Any]:
    kind = node["data"]["type"]
    if kind in {"start", "end"}:
        return inputs
    if kind == "answer":
        return {"answer": answers.text(node["id"]), "files": []}
    if kind == "template-transform":
        return {"output": jinja2.Template(node["data"]["template"]).render(**inputs)}
    if kind == "if-else":
        case = nodes.chosen_case(node["data"], variables)
        return {"result": case != "false", "selected_case_id": case}
    if kind in OUTSIDE:
        return OUTSIDE[kind](node["data"], variables)
    raise RunError(
        f"the stand-in has no node of type {kind}: it runs start, if-else, answer, end, template, code, HTTP, LLM "
        "and knowledge retrieval nodes"
    )
