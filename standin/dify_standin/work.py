"""Running an app's graph: by the worker, which publishes the events, or in api; beat makes the worker clean up."""

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
import yaml
from celery import Celery
from celery.signals import setup_logging

from dify_standin import nodes, store
from dify_standin.config import integer, text

Event = dict[str, Any]
EVENTS_TTL = 600
QUEUE = "workflow"
MAX_SLEEP = 600.0
OUTSIDE = {"code": nodes.run_code, "http-request": nodes.run_http}
CLEAN_EVERY_SECONDS = 300.0

celery = Celery("dify-stand-in", broker=text("CELERY_BROKER_URL") or None)
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
    import logging  # noqa: PLC0415

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
    try:
        for event in _execute(run):
            yield event
            if cache.exists(f"standin:stop:{run['task_id']}"):
                yield {"event": "_end", "status": "stopped"}
                return
    except RunError as problem:
        yield {"event": "_end", "status": "failed", "error": str(problem)}
    else:
        yield {"event": "_end", "status": "succeeded"}


def _template(template: str, variables: dict[str, Any]) -> str:
    """Fill `{{#node.name#}}` places, Dify's own notation."""
    for name, value in variables.items():
        template = template.replace("{{#" + name + "#}}", str(value))
    return template


def _pieces(template: str, variables: dict[str, Any]) -> Iterator[str]:
    """Yield an answer's text in the pieces in which Dify streams it: literal text and variables in turn."""
    rest = template
    while rest:
        before, found, after = rest.partition("{{#")
        if before:
            yield before
        if not found:
            return
        name, _, rest = after.partition("#}}")
        yield str(variables.get(name.strip(), ""))


def _directives(query: str) -> Callable[[], None]:
    """Return what happens before the answer: `/sleep N` waits N seconds, `/fail TEXT` fails with TEXT."""
    word, _, rest = query.partition(" ")

    def act() -> None:
        if word == "/fail":
            raise RunError(rest or "it was told to fail")
        if word == "/sleep":
            with contextlib.suppress(ValueError):
                time.sleep(min(MAX_SLEEP, max(0.0, float(rest))))

    return act


def _stream_directive(query: str) -> tuple[int, float] | None:
    """Return (pieces, seconds between them) of `/stream N D`, None for any other query."""
    words = query.split()
    if len(words) != 3 or words[0] != "/stream":  # noqa: PLR2004  # the directive's own form
        return None
    try:
        return max(1, int(words[1])), min(60.0, max(0.0, float(words[2])))
    except ValueError:
        return None


def _execute(run: dict[str, Any]) -> Iterator[Event]:
    graph = yaml.safe_load(run["dsl"])["workflow"]["graph"]
    known = {node["id"]: node for node in graph["nodes"]}
    following = {
        (edge["source"], edge.get("sourceHandle", "source")): edge["target"] for edge in graph["edges"]
    }
    system = run["system"]
    variables: dict[str, Any] = {**system, **{f"start.{k}": v for k, v in run["inputs"].items()}}
    yield {"event": "workflow_started", "workflow_run_id": run["workflow_run_id"], "data": _started(run)}
    current = next((node["id"] for node in graph["nodes"] if node["data"]["type"] == "start"), None)
    index = 0
    outputs: dict[str, Any] = {}
    while current is not None:
        node, handle = known[current], "source"
        index += 1
        if index > integer("WORKFLOW_MAX_EXECUTION_STEPS", 500):
            raise RunError("Max steps reached.")
        yield _node_event(run, node, index, "node_started", None)
        result = yield from _run_node(run, node, variables)
        variables |= {f"{node['id']}.{name}": value for name, value in result.items()}
        if node["data"]["type"] in {"end", "answer"}:
            outputs |= result
        yield _node_event(run, node, index, "node_finished", result)
        if node["data"]["type"] == "if-else":
            handle = result["selected_case_id"]
        current = following.get((current, handle))
    yield {
        "event": "workflow_finished",
        "workflow_run_id": run["workflow_run_id"],
        "data": {
            **_started(run),
            "status": "succeeded",
            "outputs": outputs,
            "error": None,
            "total_steps": index,
        },
    }


def _run_node(run: dict[str, Any], node: dict[str, Any], variables: dict[str, Any]) -> Iterator[Any]:
    kind = node["data"]["type"]
    if kind == "start":
        _directives(str(run["inputs"].get("query", run["system"].get("sys.query", ""))))()
        return {**run["inputs"], **run["system"]}
    if kind == "answer":
        return {"answer": (yield from _answer(run, node, variables))}
    if kind == "template-transform":
        named = {
            item["variable"]: variables.get(".".join(item["value_selector"]))
            for item in node["data"].get("variables", [])
        }
        return {"output": jinja2.Template(node["data"]["template"]).render(**named)}
    if kind in OUTSIDE:
        try:
            return OUTSIDE[kind](node["data"], variables)
        except nodes.NodeError as problem:
            raise RunError(str(problem)) from None
    if kind == "if-else":
        case = nodes.chosen_case(node["data"], variables)
        return {"result": case != "false", "selected_case_id": case}
    if kind == "end":
        found = {
            item["variable"]: variables.get(_selector(item["value_selector"]))
            for item in node["data"].get("outputs", [])
        }
        for name, value in found.items():
            if isinstance(value, str):
                yield {
                    "event": "text_chunk",
                    "data": {"text": value, "from_variable_selector": [node["id"], name]},
                }
        return found
    raise RunError(
        f"the stand-in has no node of type {kind}: it runs start, if-else, answer, end, template, code "
        "and HTTP nodes"
    )


def _selector(parts: list[str]) -> str:
    return ".".join(parts)


def _answer(run: dict[str, Any], node: dict[str, Any], variables: dict[str, Any]) -> Iterator[Any]:
    text_so_far = ""
    streamed = _stream_directive(str(run["system"].get("sys.query", "")))
    if streamed:
        count, pause = streamed
        for number in range(count):
            piece = f"{number} "
            text_so_far += piece
            yield {"event": "message", "answer": piece, "from_variable_selector": [node["id"], "answer"]}
            time.sleep(pause)
        return text_so_far
    for piece in _pieces(node["data"]["answer"], variables):
        text_so_far += piece
        yield {"event": "message", "answer": piece, "from_variable_selector": [node["id"], "answer"]}
    return text_so_far


def _started(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": run["workflow_run_id"],
        "workflow_id": run["workflow_id"],
        "inputs": {
            **run["inputs"],
            **{f"sys.{k}" if not k.startswith("sys.") else k: v for k, v in run["system"].items()},
        },
        "created_at": run["created_at"],
    }


def _node_event(
    run: dict[str, Any], node: dict[str, Any], index: int, event: str, outputs: dict[str, Any] | None
) -> Event:
    data: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "node_id": node["id"],
        "node_type": node["data"]["type"],
        "title": node["data"].get("title", node["id"]),
        "index": index,
        "predecessor_node_id": None,
        "inputs": None,
        "inputs_truncated": False,
        "created_at": int(time.time()),
        "iteration_id": None,
        "loop_id": None,
    }
    if event == "node_started":
        data |= {"extras": {}, "agent_strategy": None}
    else:
        data |= {
            "process_data": {},
            "process_data_truncated": False,
            "outputs": outputs,
            "outputs_truncated": False,
            "status": "succeeded",
            "error": None,
            "elapsed_time": 0.0,
            "execution_metadata": None,
            "finished_at": int(time.time()),
            "files": [],
        }
    return {"event": event, "workflow_run_id": run["workflow_run_id"], "data": data}
