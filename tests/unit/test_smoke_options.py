"""Options of a smoke run: what they mean, and that nonsense is refused before anything is asked."""

import html
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smoke_tests.declarations import add_options
from smoke_tests.exports import TargetError
from smoke_tests.options import Options, read_options
from smoke_tests.target import find_target
from tests.unit.smoke_runs import CHECKOUT
from tests.unit.smoke_upstream import ALLOWED, KEY, serving

URL = "https://dify.example.com"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIFY_STACK", "DIFY_KIT_STACK", "DIFY_API_KEY", "DIFY_NODES_KEY", "DIFY_DATASET_KEY"):
        monkeypatch.delenv(name, raising=False)


def options(*arguments: str, stdin: str = "") -> Options:
    config = pytest.Config.fromdictargs({}, [])
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    config.option = parser.parse(list(arguments))
    return read_options(config, read_stdin=lambda: stdin)


def test_the_stack_is_dev_by_default() -> None:
    assert options().stack == "dev"
    assert options().name == "dev"


@pytest.mark.parametrize("variable", ["DIFY_STACK", "DIFY_KIT_STACK"])
def test_the_stack_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "staging")

    assert options().stack == "staging"
    assert options("--stack", "other").stack == "other"


def test_an_address_beats_the_environments_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFY_KIT_STACK", "staging")
    found = options("--url", f"{URL}:8443/", "--api-key", KEY, "--allowed-origin", ALLOWED)

    assert (found.stack, found.url, found.allowed_origins) == ("", f"{URL}:8443", (ALLOWED,))
    assert found.name == "dify.example.com-8443"


def test_the_key_comes_from_a_file_from_stdin_or_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
    monkeypatch.setenv("DIFY_API_KEY", "app-of-the-environment")

    for given, expected in (
        (options("--url", URL, "--api-key-file", str(tmp_path / "key")), KEY),
        (options("--url", URL, "--api-key-file", "-", stdin=f" {KEY}\n"), KEY),
        (options("--url", URL, "--api-key", KEY), KEY),
        (options("--url", URL), "app-of-the-environment"),
    ):
        assert given.key
        assert given.key.reveal() == expected


def test_keys_of_parts_come_from_files_and_with_an_address_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("app-of-the-nodes\n", encoding="utf-8")
    monkeypatch.setenv("DIFY_NODES_KEY", "app-of-the-environment")
    monkeypatch.setenv("DIFY_DATASET_KEY", "dataset-of-the-environment")
    file = options("--stack", "dev", "--nodes-key-file", str(tmp_path / "key"))
    address = options("--url", URL, "--api-key", KEY)

    assert file.nodes_key
    assert file.nodes_key.reveal() == "app-of-the-nodes"
    assert file.dataset_key is None
    assert address.nodes_key
    assert address.nodes_key.reveal() == "app-of-the-environment"
    assert address.dataset_key
    assert address.dataset_key.reveal() == "dataset-of-the-environment"


def test_a_key_left_in_the_shell_is_not_sent_to_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFY_API_KEY", KEY)

    assert options("--stack", "dev").key is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--url", URL], "an app's API key is needed", id="no-key"),
        pytest.param(
            ["--url", URL, "--stack", "dev", "--api-key", KEY], "--url and --stack", id="url-and-stack"
        ),
        pytest.param(["--url", "dify.example.com", "--api-key", KEY], "it has no scheme", id="no-scheme"),
        pytest.param(["--url", "", "--api-key", KEY], "it has no scheme", id="empty-url"),
        pytest.param(["--url", f"{URL}/v1", "--api-key", KEY], "it has a path", id="path"),
        pytest.param(["--url", "https://me:pw@dify.example.com", "--api-key", KEY], "a user name", id="user"),
        pytest.param(["--url", URL, "--api-key", KEY, "--allowed-origin", "a b"], "white space", id="origin"),
        pytest.param(["--url", URL, "--api-key", KEY, "--api-key-file", "-"], "one of them", id="two-keys"),
        pytest.param(["--url", URL, "--api-key", ""], "not an app's key: 0", id="empty-key"),
        pytest.param(["--url", URL, "--api-key", "app 1234567890"], "one word", id="key-of-two-words"),
        pytest.param(["--url", URL, "--api-key-file", "/nowhere"], "No such file", id="no-file"),
        pytest.param(["--url", URL, "--api-key-file", "-"], "not an app's key: 0", id="empty-stdin"),
        pytest.param(["--allowed-origin", ALLOWED], "needs --url", id="origin-of-a-stack"),
        pytest.param(["--patience", "-1"], "--patience", id="patience"),
        pytest.param(["--edge", "other"], "--edge other needs --url", id="edge-of-a-stack"),
        pytest.param(["--resolve", "dify.example.com"], "--resolve 'dify.example.com' is not", id="resolve"),
        pytest.param(["--indexing", "-1"], "--indexing", id="indexing"),
        pytest.param(["--nodes-key-file", "/nowhere"], "--nodes-key-file /nowhere", id="no-nodes-file"),
        pytest.param(["--dataset-key-file", "-"], "--dataset-key-file: not a key: 0", id="empty-dataset-key"),
        pytest.param(
            ["--nodes-key-file", "-", "--dataset-key-file", "-"],
            "only one file can be stdin",
            id="two-stdins",
        ),
    ],
)
def test_nonsense_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(pytest.UsageError, match=message) as refused:
        options(*arguments)

    assert KEY not in str(refused.value)


def test_any_origin_can_be_allowed() -> None:
    policies = find_target(options("--url", URL, "--api-key", KEY, "--allowed-origin", "*")).policies

    assert policies[0].answer_to("null") == "*"


def run(
    *arguments: str, cwd: Path, stdin: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DIFY_", "PULUMI_"))}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(CHECKOUT / "smoke_tests"), "-p", "no:cacheprovider"),
            *("--reports", str(cwd / "reports"), "--browser", "none", *arguments),
        ],
        cwd=CHECKOUT,
        input=stdin,
        env=kept | {"DIFY_KIT_HOME": str(cwd / "home")} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_missing_stack_fails_the_run(tmp_path: Path) -> None:
    done = run("--stack", "nosuch", cwd=tmp_path)

    assert done.returncode == 1
    assert "stack nosuch does not exist on this machine" in done.stdout
    assert "make up STACK=nosuch" in done.stdout
    assert "passed" not in done.stdout
    assert "skipped" not in done.stdout
    assert "failures=" in (report := (tmp_path / "reports" / "smoke-nosuch.xml").read_text(encoding="utf-8"))
    assert "does not exist on this machine" in report


def test_a_missing_stack_fails_the_run_also_when_other_tests_were_chosen(tmp_path: Path) -> None:
    done = run("--stack", "nosuch", "-k", "preflight", cwd=tmp_path)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "stack nosuch does not exist" in done.stderr


def test_a_run_that_selects_nothing_fails(tmp_path: Path) -> None:
    with serving() as upstream:
        done = run("--url", upstream.url, "-k", "nothing_is_called_so", cwd=tmp_path, DIFY_API_KEY=KEY)

    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_closed_port_fails_the_run_once(tmp_path: Path) -> None:
    with serving() as upstream:
        gone = upstream.url
    done = run("--url", gone, cwd=tmp_path, DIFY_API_KEY=KEY)

    assert done.returncode == 1
    assert f"{gone} does not answer" in done.stdout
    assert "1 error" in done.stdout
    assert "passed" not in done.stdout


def test_the_key_can_be_piped(tmp_path: Path) -> None:
    with serving() as upstream:
        done = run(
            *("--url", upstream.url, "--api-key-file", "-", "-k", "test_the_key_is_accepted"),
            cwd=tmp_path,
            stdin=f"{KEY}\n",
        )

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    with serving() as upstream:
        done = run("--url", upstream.url, cwd=tmp_path, DIFY_API_KEY=KEY)
    (page,) = (tmp_path / "reports").glob("*.html")
    said = "they inspect the stack's services or exports, which --url does not give"

    assert done.returncode == 0, done.stdout[-3000:]
    assert f"tests not selected: {said}" in done.stdout
    assert f"tests: {said}" in html.unescape(page.read_text(encoding="utf-8"))


def test_a_bad_option_is_an_error_of_use(tmp_path: Path) -> None:
    done = run("--url", "nowhere", cwd=tmp_path, DIFY_API_KEY=KEY)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--url 'nowhere': it has no scheme" in done.stderr


def test_help_needs_no_stack(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)

    assert done.returncode == 0
    assert "--api-key-file" in done.stdout


def test_a_stack_without_exports_is_not_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smoke_tests.target.read_exports", lambda _stack: {"publicUrl": URL})

    with pytest.raises(TargetError, match=r"export serviceApiUrl is missing.*make up"):
        find_target(options("--stack", "dev"))


def test_the_guide_names_every_option() -> None:
    guide = (CHECKOUT / "docs" / "guides" / "smoke-tests.md").read_text(encoding="utf-8")
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    names = [name for option in parser.getgroup("smoke").options for name in option.names()]

    assert len(names) >= 8
    assert [name for name in names if f"`{name}" not in guide] == []


def test_the_guide_names_every_file_of_tests() -> None:
    guide = (CHECKOUT / "docs" / "guides" / "smoke-tests.md").read_text(encoding="utf-8")

    assert [
        path.name for path in (CHECKOUT / "smoke_tests").glob("test_*.py") if f"`{path.name}`" not in guide
    ] == []
