"""docs/cookbook/team.md: two machines work on one stack, through git, one backend and one passphrase."""

import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import docker
import pytest
import yaml
from moto.server import ThreadedMotoServer

from support.stacks import CHECKOUT, SMALLEST, Done, Stack, wait_until
from tests.guide_blocks import named

EXAMPLES = CHECKOUT / "docs" / "examples" / "ci"
JOB_SECONDS = 900
BUCKET = "dify-state"
BUCKET_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "team",
    "AWS_SECRET_ACCESS_KEY": "team-secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Machine(Stack):
    """A machine of the team: a checkout and a data directory of its own; backend and passphrase are the team's."""

    def __init__(self, folder: Path, checkout: Path, name: str = "") -> None:
        super().__init__(home=folder / "home", release=SMALLEST)
        self.name = name or self.name
        self.folder, self.checkout = folder, checkout

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command on this machine."""
        team = self.folder.parent / "team"
        # `make` runs these tests, and its options are not for the commands of a machine.
        given = {name: value for name, value in super().environment.items() if not name.startswith("MAKE")}
        return given | {
            "PULUMI_HOME": str(self.folder / "pulumi"),
            **BUCKET_CREDENTIALS,
            "PULUMI_BACKEND_URL": (team / "backend").read_text(encoding="ascii"),
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(team / "passphrase"),
        }

    def shell(self, script: str, *, seconds: float = JOB_SECONDS) -> Done:
        """Run lines of the page, or of a job, in this machine's checkout."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.checkout,
            env=self.environment | {"PATH": f"{self.checkout}/.venv/bin:{self.environment['PATH']}"},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        return Done(code=done.returncode, stdout=done.stdout, stderr=done.stderr, seconds=0)

    def job(self, file: str, job: str) -> Done:
        """Run what a job of a pipeline runs, for this stack."""
        return self.shell("\n".join(lines(file, job)).replace("production", self.name))


def lines(file: str, job: str) -> list[str]:
    """Return the commands of a job."""
    document = yaml.safe_load((EXAMPLES / file).read_text(encoding="utf-8"))
    if "jobs" not in document:
        return list(document[job]["script"])
    return [step["run"] for step in document["jobs"][job]["steps"] if "run" in step]


@pytest.mark.parametrize("job", ["preview", "deploy", "drift"])
def test_both_pipelines_run_the_same(job: str) -> None:
    assert lines("github.yml", job) == lines("gitlab.yml", job) != []


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """Serve a bucket for the state by S3's protocol; yield boto3's."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        store = boto3.resource(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            region_name="us-east-1",
            aws_access_key_id="team",
            aws_secret_access_key="team-secret",  # of a server in this process
        )
        store.create_bucket(Bucket=BUCKET)
        yield store.Bucket(BUCKET)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def team(bucket: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the team shares: a backend, a passphrase, and a repository with the kit."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "team").mkdir()
    address = bucket.meta.client.meta.endpoint_url.removeprefix("http://")
    (folder / "team" / "backend").write_text(
        f"s3://{BUCKET}?endpoint={address}&disableSSL=true&s3ForcePathStyle=true&region=us-east-1",
        encoding="ascii",
    )
    (folder / "team" / "passphrase").write_text(secrets.token_urlsafe(32), encoding="ascii")
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    repository = folder / "team" / "repository"
    for name in filter(None, tracked.stdout.decode().split("\0")):
        if (CHECKOUT / name).is_file():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, repository / name)
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "kit"]):
        git(repository, *command)
    return folder


def git(folder: Path, *arguments: str) -> None:
    """Run git with an identity of its own."""
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, timeout=120)


def checkout(team: Path, name: str) -> Path:
    """Clone the repository for a machine, and install the kit there."""
    folder = team / name
    folder.mkdir()
    git(team, "clone", "--quiet", str(team / "team" / "repository"), str(folder / "kit"))
    git(folder / "kit", "config", "user.name", "Test")
    git(folder / "kit", "config", "user.email", "test@example.com")
    return folder / "kit"


@pytest.fixture(scope="module")
def first(team: Path) -> Iterator[Machine]:
    """The machine that begins the stack with the lines of the page."""
    one = Machine(team / "first", checkout(team, "first"))
    block = named("docs/cookbook/team.md", "sh", "export PULUMI_BACKEND_URL")
    begin = "\n".join(line for line in block.splitlines() if not line.startswith("export "))
    begin = begin.replace("--images registry", f"--images local --release {SMALLEST} --http-port {one.port}")
    begin = re.sub(r" --public-url \S+", "", begin).replace("~/.local/share/dify-kit", str(one.home))
    try:
        done = one.shell("make packages\n" + begin.replace("production", one.name))
        assert done.code == 0, done.output
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def second(team: Path, first: Machine) -> Machine:
    """A colleague's machine, or a runner of the CI: a clone of the first one's repository."""
    folder = team / "second"
    folder.mkdir()
    git(team, "clone", "--quiet", str(first.checkout), str(folder / "kit"))
    return Machine(folder, folder / "kit", first.name)


def test_a_colleague_sees_the_same_stack(first: Machine, second: Machine) -> None:
    stored = (first.checkout / f"Pulumi.{first.name}.yaml").read_text(encoding="utf-8")
    assert "secure:" in stored
    assert not (first.home / "stacks" / f"Pulumi.{first.name}.yaml").exists()

    deployed = first.shell(f"make up STACK={first.name}")
    assert deployed.code == 0, deployed.output[-6000:]
    git(first.checkout, "diff", "--exit-code")
    seen = second.job("github.yml", "preview")

    assert seen.code == 0, seen.output[-6000:]
    assert "no changes: the stack is as its settings say" in seen.stderr


def test_a_merged_change_is_deployed_and_tested_by_the_ci(first: Machine, second: Machine) -> None:
    changed = first.shell(f"dify-kit set 'cors.v1[0]' https://app.example.com --stack {first.name}")
    assert changed.code == 0, changed.output
    git(first.checkout, "commit", "--all", "--message", "An origin")
    git(second.checkout, "pull", "--quiet")

    preview = second.job("gitlab.yml", "preview")
    assert preview.code == 0, preview.output[-6000:]
    assert re.search(r"[1-9]\d* change\(s\) planned", preview.stderr), preview.output[-6000:]
    done = second.job("gitlab.yml", "deploy")

    assert done.code == 0, done.output[-8000:]
    assert "1 failed" not in done.output
    assert re.search(r"Passed: all \d+ tests", done.output), done.output[-4000:]
    again = first.shell(f"make preview STACK={first.name} ARGS=--expect-no-changes")
    assert again.code == 0, again.output[-6000:]


def test_drift_fails_the_nightly_job_and_the_deployment_repairs_it(second: Machine) -> None:
    docker.from_env().containers.get(f"dify-{second.name}-web").remove(force=True)

    drift = second.job("github.yml", "drift")
    assert drift.code != 0
    assert "web" in drift.stdout, drift.output[-4000:]

    repaired = second.shell(lines("github.yml", "deploy")[0].replace("production", second.name))
    assert repaired.code == 0, repaired.output[-6000:]
    assert second.job("github.yml", "drift").code == 0


def locked(bucket: Any) -> bool:
    """Return whether a run holds the state's lock."""
    return any(True for _ in bucket.objects.filter(Prefix=".pulumi/locks/"))


def test_two_deployments_at_once_are_one_after_the_other(
    bucket: Any, first: Machine, second: Machine
) -> None:
    changed = first.shell(f"dify-kit set apiWorkers 2 --stack {first.name}")
    assert changed.code == 0, changed.output
    running = subprocess.Popen(
        [str(first.checkout / ".venv" / "bin" / "dify-kit"), "up", "--stack", first.name, "--skip-setup"],
        cwd=first.checkout,
        env=first.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: locked(bucket), seconds=240, what="the first one holds the state's lock")
        refused = second.shell(f"dify-kit up --stack {second.name} --skip-setup")
        _, told = running.communicate(timeout=JOB_SECONDS)
    finally:
        running.kill()

    assert running.returncode == 0, told[-6000:]
    assert refused.code != 0, refused.output[-6000:]
    assert "locked" in refused.stderr, refused.output[-4000:]
    assert first.shell(f"make preview STACK={first.name} ARGS=--expect-no-changes").code == 0


def test_another_passphrase_changes_nothing(second: Machine) -> None:
    other = second.folder / "other"
    other.write_text("not-the-passphrase", encoding="ascii")

    refused = second.shell(f"PULUMI_CONFIG_PASSPHRASE_FILE={other} make up STACK={second.name}")

    assert refused.code != 0
    assert "passphrase" in refused.stderr
    assert second.container("web").status == "running"
