"""What a failed test means: what is wrong, the likely cause, and the fix."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

TABLE = Path(__file__).with_name("advice.yaml")


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The three parts of a sentence about a failure."""

    wrong: str
    cause: str
    fix: str

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.wrong[:1].upper()}{self.wrong[1:]}; likely cause: {self.cause}; fix: {self.fix}."


# A pattern of a message tells more than the test does: any test fails when nothing answers.
_BY_MESSAGE: tuple[tuple[str, Advice], ...] = (
    (
        r"Name or service not known|nodename nor servname|name resolution",
        Advice(
            wrong="the name of the address does not resolve",
            cause="its DNS record does not exist yet",
            fix="create the record, or give the address with --resolve HOST:PORT:ADDRESS",
        ),
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate is not trusted",
        Advice(
            wrong="the certificate is not trusted",
            cause="its authority is private, its chain is incomplete, or it is for another name",
            fix="give the authority with --ca-file, or serve the full chain for this name",
        ),
    ),
    (
        r"ConnectError|ConnectTimeout|Connection refused|ConnectionRefusedError",
        Advice(
            wrong="the address accepts no connection",
            cause="the edge is stopped, or a firewall or a wrong port is in between",
            fix="run `make doctor` and `make up`, and check address and port",
        ),
    ),
    (
        r"Mixed Content|must be served over HTTPS",
        Advice(
            wrong="no browser lets a page of the allowed origins call this API",
            cause="every allowed origin is https and the API is plain http",
            fix="serve the API over https (docs/guides/tls.md)",
        ),
    ),
    (
        r"the rate limits of this environment are exhausted",
        Advice(
            wrong="the rate limits leave no room for this test",
            cause="the limits are low, or other clients use the same address or key",
            fix="run with less traffic, or raise --patience SECONDS",
        ),
    ),
    (
        r"-> 50[234]\b",
        Advice(
            wrong="the edge gets no answer from the service behind it",
            cause="the service is stopped, still starting or overloaded",
            fix="run `docker ps --all`, read `docker logs` of the service and run `make up`",
        ),
    ),
    (
        r"ReadTimeout|did not end within",
        Advice(
            wrong="an answer takes too long",
            cause="the service is overloaded, or waits for another one",
            fix="read `docker stats` and `docker logs` of the service, and raise its limits",
        ),
    ),
    (
        r"conversations of the smoke tests are still there",
        Advice(
            wrong="a conversation of the tests could not be deleted",
            cause="Dify refuses or delays deletions",
            fix="read `docker logs` of api; the next run tries again",
        ),
    ),
    (
        r"the Docker engine does not answer",
        Advice(
            wrong="the Docker engine does not answer",
            cause="it is stopped, or on another machine",
            fix="run the tests on the Docker host, set DOCKER_HOST, or test from outside with --url",
        ),
    ),
    (
        r"^stack \S+ (does not exist|is not deployed|: its exports)|export \w+ is",
        Advice(
            wrong="there is no deployed stack to test",
            cause="it was not deployed, or its deployment did not finish",
            fix="run `make up STACK=<name>`, name another stack with --stack, or test an address with --url",
        ),
    ),
)


@functools.cache
def table() -> Mapping[str, Advice]:
    """Return the advice of every test, by the name of its function."""
    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {name: Advice(wrong=wrong, cause=cause, fix=fix) for name, (wrong, cause, fix) in rows.items()}


def advice_for(test: str, message: str) -> Advice:
    """Return what the failure of a test means; `test` may have parameters in brackets."""
    for pattern, advice in _BY_MESSAGE:
        if re.search(pattern, message):
            return advice
    name = test.partition("[")[0]
    return table().get(name) or Advice(
        wrong=f"{name.removeprefix('test_').replace('_', ' ')}: this does not hold",
        cause="the message below names it",
        fix="read the message below",
    )
