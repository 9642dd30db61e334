"""The events of a run, with the fields of the release."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from dify_standin.dialect import Dialect

Event = dict[str, Any]
Run = Mapping[str, Any]


def workflow_started(run: Run, speech: Dialect) -> Event:
    """Return the event that a run begins with."""
    system = {name: value for name, value in run["system"].items() if name != "sys.conversation_id"}
    data = {
        "id": run["workflow_run_id"],
        "workflow_id": run["workflow_id"],
        "inputs": {**run["inputs"], **system},
        "created_at": run["created_at"],
        **({"reason": "initial"} if speech.start_reason else {}),
    }
    return {"event": "workflow_started", "workflow_run_id": run["workflow_run_id"], "data": data}


def workflow_finished(
    run: Run, outputs: Mapping[str, Any], steps: int, seconds: float, tokens: int = 0
) -> Event:
    """Return the event of a run that succeeded after so many steps and seconds, with so many tokens."""
    data = {
        "id": run["workflow_run_id"],
        "workflow_id": run["workflow_id"],
        "status": "succeeded",
        "outputs": dict(outputs),
        "error": None,
        "elapsed_time": round(seconds, 6),
        "total_tokens": tokens,
        "total_steps": steps,
        "created_by": run["created_by"],
        "created_at": run["created_at"],
        "finished_at": int(time.time()),
        "exceptions_count": 0,
        "files": [],
    }
    return {"event": "workflow_finished", "workflow_run_id": run["workflow_run_id"], "data": data}


def unbegun(run: Run, error: str, speech: Dialect) -> list[Event]:
    """Return the two events of a run whose graph could not be built, because a model is missing."""
    started = workflow_started({**run, "system": {}, "inputs": {}}, speech)
    finished = workflow_finished(run, {}, 0, 0.0)
    finished["data"] |= {
        "status": "failed",
        "outputs": None,
        "error": error,
        "created_by": {},
        "exceptions_count": 1,
    }
    return [started, finished]


class NodeEvents:
    """The two events of one node's run, which share an id."""

    def __init__(self, run: Run, node: Mapping[str, Any]) -> None:
        self._run = run
        self._begun = time.monotonic()
        self._common: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "node_id": node["id"],
            "node_type": node["data"]["type"],
            "title": node["data"].get("title", node["id"]),
            # Dify counts each node by itself.
            "index": 1,
            "predecessor_node_id": None,
        }
        self._at = int(time.time())

    def started(self) -> Event:
        """Return the event of its start."""
        return self._event(
            "node_started",
            inputs=None,
            inputs_truncated=False,
            created_at=self._at,
            extras={},
            iteration_id=None,
            loop_id=None,
            agent_strategy=None,
        )

    def finished(
        self,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        process_data: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Event:
        """Return the event of its end."""
        return self._event(
            "node_finished",
            inputs=dict(inputs),
            inputs_truncated=False,
            process_data=dict(process_data or {}),
            process_data_truncated=False,
            outputs=dict(outputs),
            outputs_truncated=False,
            status="succeeded",
            error=None,
            elapsed_time=round(time.monotonic() - self._begun, 6),
            execution_metadata=dict(metadata) if metadata else None,
            created_at=self._at,
            finished_at=int(time.time()),
            files=[],
            iteration_id=None,
            loop_id=None,
        )

    def _event(self, name: str, **data: Any) -> Event:  # noqa: ANN401  # JSON
        return {
            "event": name,
            "workflow_run_id": self._run["workflow_run_id"],
            "data": {**self._common, **data},
        }
