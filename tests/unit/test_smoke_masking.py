"""No report, output or repr of a smoke run contains a key, whatever goes wrong."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from smoke_tests.client import Answer
from smoke_tests.engine import _container
from smoke_tests.masking import MASK, Redactor, Secret
from tests.unit.smoke_runs import CHECKOUT
from tests.unit.smoke_upstream import KEY, serving

LEAKS = """
import base64, logging, sys
from urllib.parse import quote

def test_compared(target):
    key = target.key.reveal()
    assert key == "something else"

def test_in_a_long_text(target):
    body = "x" * 500 + target.key.reveal()
    assert "needle" in body, body

def test_raised(target):
    raise RuntimeError(f"Authorization: Bearer {target.key.reveal()}")

def test_printed_and_logged(target):
    print(target.key.reveal())
    print(target.key.reveal(), file=sys.stderr)
    logging.getLogger("http").warning("sent %s", target.key.reveal())
    assert False

def test_encoded(target):
    key = target.key.reveal()
    raise ValueError(base64.b64encode(key.encode()).decode() + " " + quote(key, safe=""))

def test_objects(target, visitor):
    answer = visitor.ask("GET", target.url + "/v1/info", key=True)
    assert (target, visitor, answer, target.key) == ()

def test_set_up(recorded):
    pass

import pytest

@pytest.fixture
def recorded(target, record_property):
    record_property("key", target.key.reveal())
    raise RuntimeError(target.key.reveal())
"""


@pytest.mark.parametrize("key", [KEY, "app-slash/plus+equals=", "app-sp@ce:like?&#%"])
def test_failing_tests_do_not_show_the_key(tmp_path: Path, key: str) -> None:
    (tmp_path / "test_leaks.py").write_text(LEAKS, encoding="utf-8")
    with serving() as upstream:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "smoke_tests.conftest", "-p", "no:cacheprovider"),
                *("--rootdir", str(tmp_path), str(tmp_path / "test_leaks.py"), "--url", upstream.url),
                *("--reports", str(tmp_path / "reports"), "--showlocals", "-rA", "--log-level", "DEBUG"),
                *("--browser", "none"),
            ],
            cwd=CHECKOUT,
            env=os.environ | {"DIFY_API_KEY": key},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    reports = [path.read_text(encoding="utf-8") for path in (tmp_path / "reports").iterdir()]

    assert re.search(r"6 failed.*1 error", done.stdout), done.stdout[-3000:]
    assert len(reports) == 3
    for text in (done.stdout, done.stderr, *reports):
        for spelling in (key, quote(key, safe=""), base64.b64encode(key.encode()).decode()):
            assert spelling not in text
    assert MASK in done.stdout


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r:>40}".format])
def test_a_secret_shows_a_mask(show: object) -> None:
    assert callable(show)
    assert KEY not in show(Secret(KEY))
    assert KEY not in show([Secret(KEY)])
    assert Secret(KEY).reveal() == KEY


def test_short_values_are_left_alone() -> None:
    redact = Redactor()
    redact.learn(["true", "dev", KEY])

    assert redact(f"dev is true, {KEY}") == f"dev is true, {MASK}"
    assert not redact.finds("dev is true")
    assert KEY not in repr(redact)


def test_the_longer_of_two_secrets_goes_first() -> None:
    redact = Redactor()
    redact.learn(["abcdefgh", "abcdefgh-and-more"])

    assert redact("abcdefgh-and-more") == MASK


def test_an_answer_shows_no_cookie() -> None:
    answer = Answer(
        asked="GET /", status=200, headers=(("set-cookie", KEY), ("vary", "Origin")), text="", seconds=0
    )

    assert KEY not in repr(answer)
    assert "Origin" in repr(answer)


def test_a_container_shows_no_environment() -> None:
    container = _container(
        {
            "Name": "/c",
            "Config": {"Env": [f"SECRET_KEY={KEY}"], "Labels": None},
            "HostConfig": {},
            "State": {"Status": "running"},
            "NetworkSettings": {},
        }
    )

    assert container.environment == {"SECRET_KEY": KEY}
    assert KEY not in repr(container)
    assert KEY not in container.account
