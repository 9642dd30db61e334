"""Each failure says in one sentence what is wrong, the likely cause, and the fix."""

import ast

import pytest

from smoke_tests.advice import Advice, advice_for, table
from tests.unit.test_smoke_target import SMOKE

TESTS = {
    node.name
    for path in SMOKE.glob("test_*.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}


def test_every_test_has_its_advice() -> None:
    assert len(TESTS) > 100
    assert table().keys() == TESTS


@pytest.mark.parametrize("name", sorted(TESTS))
def test_an_advice_is_one_sentence(name: str) -> None:
    sentence = str(advice_for(f"{name}[case]", "assert 401 == 200"))

    assert sentence.count("; likely cause: ") == sentence.count("; fix: ") == 1
    assert sentence.endswith(".")
    assert ". " not in sentence.removesuffix("."), sentence
    assert "\n" not in sentence
    assert all(len(part) > 5 for part in vars(table()[name]).values())


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("GET http://x: ConnectError: [Errno -2] Name or service not known", "does not resolve"),
        ("GET http://x: ConnectError: [Errno 111] Connection refused", "accepts no connection"),
        ("https://x: its certificate is not trusted: self-signed", "certificate is not trusted"),
        ("GET http://x: ReadTimeout: no bytes received within 20 s", "takes too long"),
        ("Mixed Content: the page was loaded over HTTPS", "no browser lets a page"),
        ("<GET http://x/v1 -> 502 | | ''>", "no answer from the service"),
        ("the rate limits of this environment are exhausted: <GET -> 429>", "leave no room"),
        ("stack dev does not exist on this machine (no x)", "no deployed stack"),
        ("export tls is missing: the stack was deployed", "no deployed stack"),
    ],
)
def test_a_message_tells_more_than_the_test(message: str, wrong: str) -> None:
    assert wrong in advice_for("test_blocking", message).wrong


def test_a_test_of_somebody_elses_has_a_sentence_too() -> None:
    assert str(advice_for("test_my_own_thing", "no")).startswith("My own thing: this does not hold; likely")


def test_a_sentence_begins_with_a_capital_letter() -> None:
    assert str(Advice(wrong="dify is away", cause="b", fix="c")) == "Dify is away; likely cause: b; fix: c."
