"""That there is something to test, and that it is what it says it is."""

import pytest

from smoke_tests.client import Client
from smoke_tests.target import Deployment, Target


def test_the_environment_answers(target: Target, visitor: Client) -> None:
    answer = visitor.ask("GET", f"{target.console_url}/console/api/setup")

    # nginx, api, database and migrations: this route needs all of them.
    assert answer.status == 200
    assert answer.json().keys() >= {"step", "setup_at"}


@pytest.mark.needs_stack
def test_the_deployed_release_answers(target: Target, deployment: Deployment, visitor: Client) -> None:
    answer = visitor.ask("GET", f"{target.console_url}/console/api/setup")

    assert answer.header("x-version") == deployment.release


@pytest.mark.needs_stack
def test_a_stand_in_says_so(target: Target, deployment: Deployment, visitor: Client) -> None:
    answer = visitor.ask("GET", f"{target.console_url}/console/api/setup")

    assert (answer.header("x-dify-stand-in") is not None) == deployment.stand_in
