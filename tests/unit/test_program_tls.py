"""The whole program with TLS, against a recorder: ports, services, volumes and what is secret."""

import json
from typing import Any

import pytest

from infra.catalogue.selection import volume_names
from infra.catalogue.service import Keep
from tests.unit.recording import CONTAINER, DYNAMIC, VOLUME, Recorder, run_program
from tests.unit.test_program import networks_of

ACME: dict[str, Any] = {
    "publicUrl": "https://dify.example.com",
    "bindAddress": "0.0.0.0",  # noqa: S104  # the CA comes from outside
    "tls": {"mode": "acme", "acme": {"email": "ops@example.com", "agreeTerms": True}},
}
SELF_SIGNED: dict[str, Any] = {"tls": {"mode": "selfsigned"}}


def mounts(recorder: Recorder, service: str) -> dict[str, tuple[str, bool]]:
    """Return where a service has which volume, and whether read-only."""
    return {
        one["containerPath"]: (one["volumeName"].removeprefix("dify-unit-"), one.get("readOnly", False))
        for one in recorder.of(CONTAINER)[service].get("volumes", [])
    }


@pytest.mark.parametrize(("plain", "address"), [(SELF_SIGNED, "127.0.0.1"), (ACME, "0.0.0.0")])  # noqa: S104  # see above
def test_both_ports_are_published_on_the_same_address(plain: dict[str, Any], address: str) -> None:
    published = {
        name: one["ports"] for name, one in run_program(plain).of(CONTAINER).items() if one.get("ports")
    }

    assert published == {
        "nginx": [
            {"internal": 8080, "external": 8080, "ip": address},
            {"internal": 8443, "external": 8443, "ip": address},
        ]
    }


def test_selfsigned_adds_no_service_and_its_key_goes_live_as_a_private_file() -> None:
    recorder = run_program(SELF_SIGNED)
    config = recorder.of(DYNAMIC)["nginx-config"]

    assert set(recorder.of(CONTAINER)) == set(run_program().of(CONTAINER))
    assert set(config["private_files"]) == {"tls/key.pem"}
    assert config["private_files"]["tls/key.pem"].startswith("-----BEGIN PRIVATE KEY-----")
    assert config["files"]["tls/fullchain.pem"].startswith("-----BEGIN CERTIFICATE-----")
    assert not [path for path, text in config["files"].items() if "PRIVATE KEY" in text]


def test_acme_adds_a_job_and_certbot() -> None:
    recorder = run_program(ACME)
    plain = run_program()
    added = set(recorder.of(CONTAINER)) - set(plain.of(CONTAINER))

    assert added == {"certificates", "certbot"}
    assert set(recorder.of(VOLUME)) - set(plain.of(VOLUME)) == {
        "volume-acme",
        "volume-certificates",
        "volume-challenges",
    }
    assert recorder.of(DYNAMIC)["nginx-config"]["private_files"] == {}


def test_nginx_reads_what_certbot_writes_and_not_its_account() -> None:
    recorder = run_program(ACME)
    shared = {"/etc/dify-kit/certificates": "certificates", "/var/lib/dify-kit/challenges": "challenges"}

    for path, volume in shared.items():
        assert mounts(recorder, "nginx")[path] == (volume, True)
        assert mounts(recorder, "certbot")[path] == (volume, False)
    assert "acme" not in {volume for volume, _ in mounts(recorder, "nginx").values()}


def test_certbot_runs_as_nginx_without_any_capability_or_socket() -> None:
    containers = run_program(ACME).of(CONTAINER)
    certbot, nginx = containers["certbot"], containers["nginx"]

    assert (certbot["user"], nginx["user"]) == ("101:101", "101")
    assert certbot["capabilities"] == {"drops": ["ALL"], "adds": []}
    assert not certbot.get("ports")
    # The volume is all that it shares with the others.
    alone = {name for name, one in containers.items() if "acme" in networks_of(one)}
    assert (alone, networks_of(certbot)) == ({"certbot"}, {"acme"})
    assert containers["certificates"]["networkMode"] == "none"
    for one in containers.values():
        assert not [mount for mount in one.get("volumes", []) if "hostPath" in mount]


def test_nginx_watches_for_certificates_with_acme_alone() -> None:
    with_acme = run_program(ACME).of(CONTAINER)["nginx"]["command"][0]
    without = run_program(SELF_SIGNED).of(CONTAINER)["nginx"]["command"][0]

    assert "readlink /etc/dify-kit/certificates/current" in with_acme
    assert "readlink" not in without


def test_what_outlives_the_stack_is_what_the_command_line_can_delete() -> None:
    oauth = {"enabled": True, "tenants": {"acme": {"app": "echo-chat"}}}
    plain, secrets = (
        {**ACME, "llm": {"enabled": True}, "oauth": oauth},
        {"llmKeys": json.dumps({"holysheep": "k" * 40})},
    )
    volumes = run_program(plain, secrets=secrets).of(VOLUME)
    # Volumes that are made anew carry the name of the stack alone.
    lasting = {name.removeprefix("volume-") for name, one in volumes.items() if len(one["labels"]) > 1}

    assert lasting == set(volume_names(Keep.DATA, Keep.RECORDS))
