"""Every container of the stack runs and is healthy."""

import pytest

from infra.edge.paths import NGINX_CONFIG
from smoke_tests.inside import Inside, host_of
from smoke_tests.target import Deployment

pytestmark = pytest.mark.needs_stack


def test_the_container_runs_and_is_healthy(inside: Inside, deployment: Deployment, service: str) -> None:
    container = inside.settled(deployment.containers[service])

    assert (container.status, container.health) == ("running", "healthy"), container.account


def test_the_job_succeeded(inside: Inside, deployment: Deployment, job: str) -> None:
    container = inside.settled(deployment.jobs[job])

    assert (container.status, container.exit_code) == ("exited", 0), container.account


@pytest.mark.needs_shell
def test_nginx_accepts_the_configuration_it_runs(deployment: Deployment) -> None:
    edge = host_of(deployment.containers[deployment.edge])

    # `-t` parses the files that are on disk now; nginx resolves names while parsing, hence the timeout.
    test = edge.run(f"timeout 20 nginx -e stderr -t -c {NGINX_CONFIG}")

    assert test.rc == 0, test.stderr


@pytest.mark.needs_shell
def test_nginx_was_started_with_the_configuration_of_the_kit(deployment: Deployment) -> None:
    edge = host_of(deployment.containers[deployment.edge])

    started = edge.check_output("tr '\\0' '\\n' < /proc/1/cmdline")

    # nginx's process title has its command line as one text.
    assert NGINX_CONFIG in started.split()
