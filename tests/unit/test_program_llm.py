"""The whole program with the LLM proxy, against a recorder: where keys go, and where they do not."""

import json

from infra.catalogue import ports
from infra.edge.llm import SECRETS_FILE
from infra.edge.paths import USAGE_DIRECTORY
from tests.unit.recording import CONTAINER, DYNAMIC, VOLUME, run_program

KEY = "hs-0123456789-0123456789-wxyz"
RUN = {"plain": {"llm": {"enabled": True}}, "secrets": {"llmKeys": json.dumps({"holysheep": KEY})}}


def test_the_key_goes_live_in_a_private_file_and_nowhere_else() -> None:
    recorder = run_program(**RUN)  # type: ignore[arg-type]
    config = recorder.of(DYNAMIC)["nginx-config"]

    assert json.loads(config["private_files"][SECRETS_FILE])["keys"] == {"holysheep": KEY}
    assert KEY not in json.dumps(config["files"])
    assert not [name for name, one in recorder.of(CONTAINER).items() if KEY in json.dumps(one, default=str)]


def test_no_container_and_no_port_comes_with_it() -> None:
    containers, plain = run_program(**RUN).of(CONTAINER), run_program().of(CONTAINER)  # type: ignore[arg-type]

    assert set(containers) == set(plain)
    assert containers["nginx"]["ports"] == plain["nginx"]["ports"]
    assert ports.EDGE_LLM not in [port["internal"] for port in containers["nginx"]["ports"]]


def test_counters_lie_on_a_volume_that_outlives_the_stack() -> None:
    recorder = run_program(**RUN)  # type: ignore[arg-type]

    assert set(recorder.of(VOLUME)) - set(run_program().of(VOLUME)) == {"volume-llm_usage"}
    mounts = {one["containerPath"]: one for one in recorder.of(CONTAINER)["nginx"]["volumes"]}
    assert mounts[USAGE_DIRECTORY]["volumeName"] == "dify-unit-llm_usage"
    assert not mounts[USAGE_DIRECTORY].get("readOnly", False)
