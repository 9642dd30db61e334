"""One engine for everything, chosen as docker's own command line chooses it."""

import hashlib
import json
from pathlib import Path

import pytest

from infra import engine
from infra.engine import EngineChoiceError, child_environment, chosen, provider_takes, ssh_problem

FAR, NEAR = "tcp://far.example:2376", "unix:///run/user/1000/docker.sock"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A directory of docker's, with two contexts."""
    context(tmp_path, "far", FAR, tls=True)
    context(tmp_path, "rootless", NEAR)
    return tmp_path


def context(
    configuration: Path, name: str, host: str, *, tls: bool = False, unverified: bool = False
) -> None:
    """Write a context as docker keeps it."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = configuration / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": unverified}
    (meta / "meta.json").write_text(
        json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}})
    )
    if tls:
        folder = configuration / "contexts" / "tls" / digest / "docker"
        folder.mkdir(parents=True)
        for file in engine.CERTIFICATES:
            (folder / file).write_text("pem")


def use(configuration: Path, name: str) -> None:
    (configuration / "config.json").write_text(json.dumps({"auths": {}, "currentContext": name}))


# (variables, current context) -> (address, what is named in messages)
CHOICES = {
    "nothing": ({}, "", engine.DEFAULT_ADDRESS, "docker's default"),
    "current context": ({}, "rootless", NEAR, "docker's current context rootless"),
    "context over current": ({"DOCKER_CONTEXT": "far"}, "rootless", FAR, "DOCKER_CONTEXT=far"),
    "host over context": (
        {"DOCKER_HOST": "unix:///x.sock", "DOCKER_CONTEXT": "far"},
        "rootless",
        "unix:///x.sock",
        "DOCKER_HOST",
    ),
    "empty variables": (
        {"DOCKER_HOST": "", "DOCKER_CONTEXT": ""},
        "rootless",
        NEAR,
        "current context rootless",
    ),
    "default by name": (
        {"DOCKER_CONTEXT": "default"},
        "far",
        engine.DEFAULT_ADDRESS,
        "DOCKER_CONTEXT=default",
    ),
}


@pytest.mark.parametrize("case", CHOICES)
def test_engine_is_chosen_as_docker_does_it(configuration: Path, case: str) -> None:
    variables, current, address, named = CHOICES[case]
    use(configuration, current)

    found = chosen({"DOCKER_CONFIG": str(configuration), **variables})

    assert found.address == address
    assert named in str(found)
    assert address in str(found)


def test_docker_sdk_takes_another_engine_by_itself_than_the_provider(configuration: Path) -> None:
    # The reason of all this. The provider asks no context but DOCKER_CONTEXT's, and that before DOCKER_HOST.
    use(configuration, "rootless")
    environ = {"DOCKER_CONFIG": str(configuration)}

    assert provider_takes(environ) != chosen(environ).address
    told = child_environment(environ, chosen(environ))
    assert provider_takes(told) == chosen(told).address == NEAR


@pytest.mark.parametrize("case", CHOICES)
def test_children_and_the_provider_get_the_same_engine(configuration: Path, case: str) -> None:
    variables, current, address, _ = CHOICES[case]
    use(configuration, current)
    environ = {"DOCKER_CONFIG": str(configuration), "DOCKER_CERT_PATH": "/stale", "PATH": "/bin", **variables}

    told = child_environment(environ, chosen(environ))

    assert provider_takes(told) == chosen(told).address == address
    assert told["PATH"] == "/bin"
    # A socket with certificates would fail, and an engine by TLS without.
    assert ("DOCKER_CERT_PATH" in told) is address.startswith("tcp")
    assert told.get("DOCKER_CERT_PATH") != "/stale"


MALFORMED = {
    "unknown context": ({"DOCKER_CONTEXT": "nowhere"}, "no such context"),
    "no scheme": ({"DOCKER_HOST": "far.example:2375"}, "no address of a Docker engine"),
    "windows": ({"DOCKER_HOST": "npipe:////./pipe/docker_engine"}, "no address of a Docker engine"),
    "no port": ({"DOCKER_HOST": "tcp://far.example:many"}, "no address of a Docker engine"),
    "no path": ({"DOCKER_HOST": "unix://"}, "no address of a Docker engine"),
    "ssh with a path": ({"DOCKER_HOST": "ssh://far.example/run/docker.sock"}, "a path after ssh://host"),
    "unverified": ({"DOCKER_CONTEXT": "loose"}, "SkipTLSVerify"),
    "no certificates": (
        {"DOCKER_HOST": FAR, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/nowhere"},
        "/nowhere has no ca.pem",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_names_no_engine_is_an_error_with_the_reason(configuration: Path, case: str) -> None:
    variables, reason = MALFORMED[case]
    context(configuration, "loose", FAR, unverified=True)

    with pytest.raises(EngineChoiceError, match=reason) as problem:
        chosen({"DOCKER_CONFIG": str(configuration), **variables})

    assert problem.value.fix


def test_broken_configuration_of_docker_is_named(configuration: Path) -> None:
    (configuration / "config.json").write_text("{")

    with pytest.raises(EngineChoiceError, match=r"config\.json cannot be read"):
        chosen({"DOCKER_CONFIG": str(configuration)})


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", ""),
        ("echo 'ops@far.example: Permission denied (publickey).' >&2; exit 255", "Permission denied"),
        ("echo 'bash: docker: command not found' >&2; exit 127", "docker: command not found"),
        ("echo noise >&2; echo 'dial unix docker.sock: connect: permission denied' >&2; exit 1", "dial unix"),
    ],
)
def test_what_an_engine_by_ssh_lacks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\n{script}\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    problem = ssh_problem(chosen({"DOCKER_HOST": "ssh://ops@far.example:2222"}))

    assert (said in problem) if said else not problem
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("-o BatchMode=yes -l ops -p 2222 -- far.example docker version")


def test_missing_ssh_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "has no ssh" in ssh_problem(chosen({"DOCKER_HOST": "ssh://far.example"}))
    assert not ssh_problem(chosen({"DOCKER_HOST": "unix:///x.sock"}))


def test_nobody_leaves_the_choice_to_dockers_sdk() -> None:
    root = Path(__file__).resolve().parents[2]
    sources = [path for part in ("infra", "dify_kit", "smoke_tests") for path in (root / part).rglob("*.py")]

    assert sources
    assert [path.name for path in sources if "from_env(" in path.read_text(encoding="utf-8")] == []
