"""The target answers, and it is the release that it is expected to be."""

import pytest

from smoke_tests.client import Client
from smoke_tests.target import Deployment, Target


def test_the_environment_answers(target: Target, visitor: Client) -> None:
    url, status = target.probe
    answer = visitor.ask("GET", url)

    # This route needs nginx, api, the database and its migrations. Behind a gate, the error for a missing key.
    assert answer.status == status
    assert answer.json().keys() >= ({"code", "message"} if target.hides_console else {"step", "setup_at"})


@pytest.mark.needs_stack
def test_the_deployed_release_answers(target: Target, deployment: Deployment, visitor: Client) -> None:
    answer = visitor.ask("GET", target.probe[0])

    assert answer.header("x-version") == deployment.release


@pytest.mark.needs_stack
def test_a_stand_in_identifies_itself(target: Target, deployment: Deployment, visitor: Client) -> None:
    answer = visitor.ask("GET", target.probe[0])

    assert (answer.header("x-dify-stand-in") is not None) == deployment.stand_in
