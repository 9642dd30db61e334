"""Large packages are imported by one thread at a time."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from infra.engine import packages

SECONDS = 30


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that takes its time and then imports a module of its own, as `requests` and `kubernetes` do."""
    name = f"slow_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(f"import time\ntime.sleep(0.5)\nfrom {name}.part import VALUE\n")
    (folder / "part.py").write_text(f"import {name}\nVALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_package_and_its_module_are_whole_in_two_threads(package: str) -> None:
    started = threading.Event()

    def first() -> ModuleType:
        started.set()
        return packages.whole(package)

    with ThreadPoolExecutor(2) as threads:
        whole = threads.submit(first)
        assert started.wait(SECONDS)
        deadline = time.monotonic() + SECONDS
        while package not in sys.modules and time.monotonic() < deadline:
            time.sleep(0.01)
        # `import package.part` would wait here for the package, which then waits for its part: the package gets a part
        # without VALUE.
        part = threads.submit(packages.whole, f"{package}.part")

        assert whole.result(SECONDS).VALUE == 1
        assert part.result(SECONDS).VALUE == 1


def test_the_last_of_several_is_returned() -> None:
    assert packages.whole("json", "json.decoder") is sys.modules["json.decoder"]
