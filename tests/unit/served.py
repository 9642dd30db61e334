"""What nginx serves to Prometheus, made by its own scripts in node."""

import json
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from playwright._impl._driver import compute_driver_executable

from infra.catalogue.releases import RELEASES
from infra.catalogue.route_groups import TABLE
from infra.edge.context import edge_context
from infra.edge.render import edge_files
from infra.edge.traffic import INTROSPECTION, SESSION, TOKEN, Traffic
from support.configuration import settings

SCRIPT = Path(__file__).parent / "njs" / "served.js"
SECONDS = 60
LLM = {
    "enabled": True,
    "upstreams": {"first": {"baseUrl": "https://first.example/v1"}},
    "models": {"gpt-4.1": ["first"]},
    "embeddings": {},
    "prices": {"gpt-4.1": {"input": 2, "output": 8}},
    "monthlyBudget": 5,
}


@cache
def served() -> str:
    """Return the metrics of an edge with every route group, OAuth, the gate and the LLM proxy, after some requests."""
    found = settings({"llm": LLM}, {"llmKeys": json.dumps({"first": "x" * 20})})
    files = edge_files(edge_context(found, RELEASES[found.release]))
    tables = Traffic().tables((one.name for one in TABLE), (TOKEN, INTROSPECTION, SESSION), dry_run=False)
    with tempfile.TemporaryDirectory(prefix="dify-kit-served-") as directory:
        path = Path(directory) / "tables.json"
        path.write_text(next(text for name, text in files.items() if name.endswith("/llm/tables.json")))
        done = subprocess.run(
            [compute_driver_executable()[0], "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", str(SCRIPT)],
            check=True,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={
                **os.environ,
                "EDGE_TABLES": str(path),
                "TRAFFIC_TABLES": tables,
                "TMPDIR": directory,
            },
        )
    return done.stdout
