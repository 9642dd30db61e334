"""The edge's scripts in node: the tests of tests/unit/njs/, with the tables that the kit renders."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from playwright._impl._driver import compute_driver_executable

from infra.catalogue.releases import RELEASES
from infra.edge.context import edge_context
from infra.edge.render import edge_files
from tests.unit.configuration import settings

FOLDER = Path(__file__).parent / "njs"
SECONDS = 300
# Two upstreams, of which one calls a model by another name.
LLM = {
    "enabled": True,
    "upstreams": {name: {"baseUrl": f"https://{name}.example/v1"} for name in ("first", "second")},
    "models": {"gpt-4.1": ["first", "second:other"], "cheap": ["second"]},
    "embeddings": {},
    "prices": {"gpt-4.1": {"input": 2, "output": 8}},
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file with the tables of the LLM proxy, as they are rendered."""
    found = settings({"llm": LLM}, {"llmKeys": json.dumps({"first": "x" * 20, "second": "y" * 20})})
    files = edge_files(edge_context(found, RELEASES[found.release]))
    path = tmp_path_factory.mktemp("njs") / "tables.json"
    path.write_text(next(text for name, text in files.items() if name.endswith("/llm/tables.json")))
    return path


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*.test.js")))
def test_scripts_in_node(file: str, tables: Path, tmp_path: Path) -> None:
    # Playwright brings a node with it: none has to be on the machine, and all machines run the same one.
    node = compute_driver_executable()[0]
    done = subprocess.run(
        [
            node,
            "--test",
            "--test-reporter=tap",
            "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON",
            str(FOLDER / file),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "EDGE_TABLES": str(tables), "TMPDIR": str(tmp_path)},
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"^# pass [1-9]", done.stdout, re.MULTILINE), "it has no test"
