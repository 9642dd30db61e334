"""From exports to a target, and from a target to the tests that can say something about it."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue.releases import RELEASES
from infra.edge.errors import ERRORS
from infra.exports import group_facts
from smoke_tests.client import Answer, Client, Patience
from smoke_tests.closed import CLOSED, console_closed
from smoke_tests.cors import Case, cases, look_alikes, policy_of, problems
from smoke_tests.exports import TargetError
from smoke_tests.masking import Redactor, Secret
from smoke_tests.options import Options
from smoke_tests.run import Run
from smoke_tests.selection import ORDER, left_out
from smoke_tests.target import from_exports
from support.configuration import settings
from tests.unit.smoke_runs import CHECKOUT
from tests.unit.smoke_upstream import ALLOWED, KEY, Handler, serving

SMOKE = CHECKOUT / "smoke_tests"
# The variable of tests/unit/smoke_exports.py that puts the console behind a gate.
GATED, ON_CLUSTER = "SMOKE_EXPORTS_GATED", "SMOKE_EXPORTS_ON_CLUSTER"


def group_exports(release: str) -> dict[str, Any]:
    """Return the export of the route groups of a release."""
    plain = settings({"cors": {"v1": [ALLOWED]}})
    urls = replace(plain.urls, service="https://api.example.com", console="https://console.example.com")
    return group_facts(replace(plain, urls=urls), RELEASES[release])


EXPORTS: dict[str, Any] = {
    "stack": "dev",
    "release": "1.17.1",
    "images": "local",
    "standIn": True,
    "publicUrl": "http://localhost:8080",
    "serviceApiUrl": "https://api.example.com/v1",
    "consoleUrl": "https://console.example.com",
    "bindAddress": "127.0.0.1",
    "httpPort": 8080.0,
    "tls": {"mode": "off", "httpsPort": None, "redirect": False, "hstsSeconds": 0.0, "ca": ""},
    "containers": {"api": "dify-dev-api", "nginx": "dify-dev-nginx"},
    "jobs": {"migration": "dify-dev-migration"},
    "edge": "nginx",
    "networks": ["dify-dev-app"],
    "routeGroups": group_exports("1.17.1"),
    "maxUploadMegabytes": 15.0,
    "rateLimits": {"dryRun": False, "groups": {"v1": {"requests": 5.0, "burst": 5.0, "retryAfter": 13.0}}},
    "adminEmail": "admin@example.com",
    "oauthCallbackUrls": {"github": "https://console.example.com/x"},
    "apps": {},
    "appKeys": {},
    "canary": {"id": "1"},
    "canaryKey": KEY,
    "canaryNodes": {"id": "2"},
    "canaryNodesKey": "app-of-the-nodes-on-paper",
    "canaryDatasetKey": "dataset-key-on-paper",
    "ssrfAllowPrivate": [],
}


def chosen(key: Secret | None = None) -> Options:
    return Options(
        stack="dev",
        url="",
        key=key,
        allowed_origins=(),
        verify=True,
        patience=0,
        browser="none",
        reports=Path("reports"),
    )


def test_exports_become_a_target() -> None:
    target = from_exports(EXPORTS, chosen())

    assert target.url == "http://localhost:8080"
    assert target.v1.path == "https://api.example.com/v1/parameters"
    assert {policy.group: policy.url for policy in target.policies}[
        "console"
    ] == "https://console.example.com"
    assert target.key
    assert target.key.reveal() == KEY
    assert target.deployment
    assert target.deployment.http_port == 8080
    assert target.too_large == 17 * 1024 * 1024
    assert "STAND-IN" in target.title
    assert KEY not in repr(target)


def test_a_key_that_was_given_goes_before_the_canarys() -> None:
    key = from_exports(EXPORTS, chosen(Secret("app-given-by-hand"))).key

    assert key
    assert key.reveal() == "app-given-by-hand"
    assert not from_exports(EXPORTS, chosen(Secret("app-given-by-hand"))).asks_canary
    assert from_exports(EXPORTS, chosen()).asks_canary


@pytest.mark.parametrize("release", RELEASES)
def test_groups_are_those_of_the_release(release: str) -> None:
    exports = EXPORTS | {"release": release, "routeGroups": group_exports(release)}
    groups = {policy.group for policy in from_exports(exports, chosen()).policies}

    assert ("openapi" in groups) == (release >= "1.17")
    assert {"v1", "api", "console", "files", "mcp", "triggers"} <= groups


@pytest.mark.parametrize(
    "name",
    [
        "publicUrl",
        "serviceApiUrl",
        "consoleUrl",
        "release",
        "routeGroups",
        "containers",
        "httpPort",
        "tls",
        "canaryKey",
    ],
)
@pytest.mark.parametrize("value", [None, []])
def test_a_bad_export_is_named(name: str, value: object) -> None:
    with pytest.raises(TargetError, match=f"export {name} .*make up STACK=dev") as refused:
        from_exports(EXPORTS | {name: value}, chosen())

    assert KEY not in str(refused.value)


class FakeItem:
    """A test as collection sees it."""

    path = SMOKE / "test_target.py"

    def __init__(self, name: str, *markers: str) -> None:
        self.name, self._markers = name, markers

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self._markers else None


def test_without_a_canary_what_asks_an_app_is_left_out() -> None:
    target = from_exports(EXPORTS | {"canary": None, "canaryKey": None}, chosen())
    run = Run(options=chosen(), redact=Redactor(), target=target)

    assert target.key is None
    assert "dify:canary is false" in left_out(run, FakeItem("test_blocking", "needs_key"))  # type: ignore[arg-type]
    assert not left_out(run, FakeItem("test_the_job_succeeded", "needs_stack"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("export", "marker", "message"),
    [
        ("canaryNodesKey", "needs_nodes", "dify:canary is false"),
        ("canaryDatasetKey", "needs_knowledge", "dify:canaryKnowledge is false"),
    ],
)
def test_without_a_key_of_a_part_its_tests_are_left_out(export: str, marker: str, message: str) -> None:
    run = Run(options=chosen(), redact=Redactor(), target=from_exports(EXPORTS | {export: None}, chosen()))
    whole = Run(options=chosen(), redact=Redactor(), target=from_exports(EXPORTS, chosen()))

    assert message in left_out(run, FakeItem("test_it", marker))  # type: ignore[arg-type]
    assert not left_out(whole, FakeItem("test_it", marker))  # type: ignore[arg-type]


def test_a_service_that_the_release_lacks_is_not_tested() -> None:
    class Item(FakeItem):
        def get_closest_marker(self, name: str) -> Any:
            return pytest.mark.needs_service(self.name).mark if name == "needs_service" else None

    run = Run(options=chosen(), redact=Redactor(), target=from_exports(EXPORTS, chosen()))

    assert "they test sandbox, which Dify 1.17.1 does not have" in left_out(run, Item("sandbox"))  # type: ignore[arg-type]
    assert not left_out(run, Item("api"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("allowed", "host", "message"),
    [
        ([], "169.254.169.254", ""),
        (["169.254.0.0/16"], "169.254.169.254", "dify:ssrfAllowPrivate (169.254.0.0/16)"),
        (["api"], "api", "dify:ssrfAllowPrivate (api)"),
        (["10.9.0.0/16"], "169.254.169.254", ""),
    ],
)
def test_what_squid_may_let_through_is_not_asked_for(allowed: list[str], host: str, message: str) -> None:
    class Item(FakeItem):
        def get_closest_marker(self, name: str) -> Any:
            return pytest.mark.needs_refusal(host).mark if name == "needs_refusal" else None

    exports = EXPORTS | {"ssrfAllowPrivate": allowed, "containers": {"nginx": "dify-dev-nginx"}}
    run = Run(options=chosen(), redact=Redactor(), target=from_exports(exports, chosen()))

    reason = left_out(run, Item("test_it"))  # type: ignore[arg-type]
    assert bool(reason) == bool(message)
    assert message in reason


def test_a_key_that_a_deployment_did_not_make_is_missing_by_its_name() -> None:
    older = {name: value for name, value in EXPORTS.items() if name != "canaryNodesKey"}

    with pytest.raises(TargetError, match=r"export canaryNodesKey is missing.*make up STACK=dev"):
        from_exports(older, chosen())


@pytest.mark.parametrize(
    "origin", [ALLOWED, "http://localhost:18222", "http://127.0.0.1:65535", "https://[::1]:8443", "https://a"]
)
def test_look_alikes_are_different_and_none_is_the_origin(origin: str) -> None:
    found = look_alikes(origin)

    assert len(set(found.values())) == len(found) >= 9
    assert origin not in found.values()


def test_a_look_alike_that_is_allowed_too_is_expected_to_pass() -> None:
    policy = policy_of("v1", url="", allowed=(ALLOWED, "http://app.example.com"), own="http://localhost")
    twin = next(case for case in cases(policy) if case.kind == "other-scheme")

    assert policy.answer_to(twin.origin) == "http://app.example.com"


def test_without_an_allowed_origin_refusals_are_tested() -> None:
    policy = policy_of("v1", url="", allowed=(), own="http://localhost:8080")
    found = {case.kind: policy.answer_to(case.origin) for case in cases(policy)}

    assert {"own", "unrelated", "null", "suffix"} <= found.keys()
    assert set(found.values()) == {None}


RIGHT = (("access-control-allow-origin", ALLOWED), ("vary", "Accept-Encoding, Origin"))


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        pytest.param(RIGHT, "", id="right"),
        pytest.param((*RIGHT, RIGHT[0]), "2 times", id="twice"),
        pytest.param((*RIGHT, ("vary", "origin")), "Vary names Origin 2 times", id="vary-twice"),
        pytest.param(RIGHT[:1], "Vary names Origin 0 times", id="no-vary"),
        pytest.param(RIGHT[1:], "https://app.example.com expected", id="missing"),
        pytest.param(
            (("access-control-allow-origin", "*"), RIGHT[1]), "https://app.example.com expected", id="star"
        ),
        pytest.param(
            (("access-control-allow-origin", ALLOWED.upper()), RIGHT[1]),
            "https://app.example.com expected",
            id="upper-case",
        ),
        pytest.param(
            (*RIGHT, ("access-control-allow-credentials", "true")), "none expected", id="credentials"
        ),
    ],
)
def test_problems_with_headers_are_named(headers: tuple[tuple[str, str], ...], message: str) -> None:
    policy = policy_of("v1", url="", allowed=(ALLOWED,), own="")
    answer = Answer(asked="GET /", status=200, headers=headers, text="", seconds=0)
    found = problems(answer, Case(policy=policy, kind="allowed", origin=ALLOWED))

    assert bool(found) == bool(message)
    assert message in " ".join(found)


def test_a_refused_origin_may_be_told_nothing_at_all() -> None:
    policy = policy_of("v1", url="", allowed=(ALLOWED,), own="")
    answer = Answer(
        asked="", status=200, headers=(RIGHT[1], ("access-control-max-age", "5")), text="", seconds=0
    )

    assert problems(answer, Case(policy=policy, kind="null", origin="null"))


def test_every_test_function_is_collected(tmp_path: Path) -> None:
    # Browser tests are collected only where a browser is found.
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\necho Chromium 999.0", encoding="utf-8")
    browser.chmod(0o755)
    # Behind a gate the console is tested in another way, and on a cluster what containers may do.
    every = [collect(browser, {}), collect(browser, {GATED: "1"}), collect(browser, {ON_CLUSTER: "1"})]
    collected = {
        (file, name)
        for done in every
        for file, name in re.findall(r"^smoke_tests/(\w+)\.py::(\w+)", done.stdout, re.MULTILINE)
    }
    written = {
        (path.stem, node.name)
        for path in SMOKE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }

    for done in every:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(written) > 35
    assert collected == written
    assert {f"test_{part}" for part in ORDER} == {file for file, _ in written}


def collect(browser: Path, variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Collect the smoke tests of the stack on paper."""
    return subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "smoke_tests",
                "--collect-only",
                "-q",
                "-p",
                "no:cacheprovider",
            ),
            *("-p", "tests.unit.smoke_exports", "--browser", str(browser), "--llm-chat", "gpt-4.1"),
        ],
        cwd=CHECKOUT,
        env={**os.environ, "DIFY_LLM_KEY": "dkp_on-paper", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_place_skips() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in SMOKE.rglob("*.py")}

    assert [
        name for name, source in sources.items() if re.search(r"\b(skip|skipif|importorskip|xfail)\(", source)
    ] == ["untested.py"]
    # A stream that this busy machine cannot time, a console that is closed to this machine by setting, and a limit that
    # the requests of a test cannot reach.
    assert sorted(name for name, source in sources.items() if " leave_out(" in source) == [
        "conftest.py",
        "test_browser.py",
        "test_chat.py",
        "test_limits.py",
        "untested.py",
    ]


def test_nothing_signs_in() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in SMOKE.rglob("test_*.py")}

    assert not [name for name, source in sources.items() if "console/api/login" in source]


LLM = {
    "url": "http://localhost:8080/llm/v1",
    "models": ["gpt-4.1"],
    "embeddings": ["small"],
    "corsOrigins": ["https://app.example.com"],
}


def test_the_proxy_is_known_from_the_exports() -> None:
    llm = from_exports(EXPORTS | {"llm": LLM}, chosen()).llm

    assert llm is not None
    assert (llm.url, llm.short_url) == (LLM["url"], "http://localhost:8080/api/chat")
    assert llm.models == ("gpt-4.1", "small")
    assert llm.origins == ("https://app.example.com",)
    assert from_exports(EXPORTS | {"llm": None}, chosen()).llm is None


@pytest.mark.parametrize(
    ("llm", "message"), [(None, "dify:llm.enabled"), (LLM, "the proxy serves gpt-4.1, small")]
)
def test_a_model_that_cannot_be_asked_is_an_error(llm: object, message: str) -> None:
    options = dataclasses.replace(chosen(), llm_chat="gpt-2")

    with pytest.raises(TargetError, match=message):
        from_exports(EXPORTS | {"llm": llm}, options)


def test_a_console_that_may_be_closed_is_not_what_proves_that_dify_answers() -> None:
    plain, closed = (
        from_exports(EXPORTS | {"consoleAllowFrom": networks}, chosen())
        for networks in ([], ["192.0.2.0/24"])
    )

    assert plain.probe == ("https://console.example.com/console/api/setup", 200)
    assert closed.probe == ("https://api.example.com/v1/parameters", 401)


class ClosedHandler(Handler):
    """Answers the console's pages as the edge does to an address that is not listed, or as something else does."""

    def route(self, body: dict[str, Any]) -> None:
        if self.path == "/signin":
            other = self.wrong("html-403") or self.wrong("json-403")
            self.send(403, {"code": "denied"} if self.wrong("json-403") else "" if other else CLOSED)
        else:
            super().route(body)

    def send_header(self, keyword: str, value: str) -> None:
        # Dify adds its version to every answer; the edge's own does not have it.
        if keyword != "X-Version" or self.wrong("403-of-dify"):
            super().send_header(keyword, value)


OFFICE = ("192.0.2.0/24",)


@pytest.mark.parametrize(
    ("handler", "defect", "allowed", "closed"),
    [
        (ClosedHandler, "none", OFFICE, True),
        (Handler, "none", OFFICE, False),
        # A defect: by the settings it is open to every address.
        (ClosedHandler, "none", (), False),
        (ClosedHandler, "none", ("0.0.0.0/1", "10.0.0.0/8", "128.0.0.0/1"), False),
        (ClosedHandler, "none", ("192.0.2.0/24", "::/0"), False),
        (ClosedHandler, "none", ("0.0.0.0/1", "::/1"), True),
        # Another proxy's 403, or Dify's.
        (ClosedHandler, "html-403", OFFICE, False),
        (ClosedHandler, "json-403", OFFICE, False),
        (ClosedHandler, "403-of-dify", OFFICE, False),
        (ClosedHandler, "no-request-id", OFFICE, False),
    ],
)
def test_a_console_is_closed_by_its_setting_alone(
    handler: type[Handler], defect: str, allowed: tuple[str, ...], *, closed: bool
) -> None:
    client = Client(key=None, redact=Redactor(), patience=Patience(seconds=0), direct=True, verify=True)
    with serving(defect, kind=handler) as upstream:
        reason = console_closed(client, upstream.url, allowed)
    client.close()

    assert bool(reason) == closed
    assert (f"{', '.join(allowed)} only (dify:consoleAllowFrom)" in reason) == closed


def test_the_edges_403_is_that_of_its_table() -> None:
    (error,) = (one for one in ERRORS if one.status == 403)

    assert {"code": error.code, "message": error.message, "status": error.status} == CLOSED


def test_on_a_cluster_what_inspects_containers_of_an_engine_is_left_out() -> None:
    found = from_exports({**EXPORTS, "platform": "kubernetes"}, chosen())
    run = Run(options=chosen(), redact=Redactor(), target=found)

    assert found.deployment
    assert not found.deployment.on_engine
    assert found.asks_canary
    assert "on a cluster" in left_out(run, FakeItem("test_only_the_edge", "needs_engine"))  # type: ignore[arg-type]
    assert not left_out(run, FakeItem("test_the_job_succeeded", "needs_stack"))  # type: ignore[arg-type]
    assert not left_out(run, FakeItem("test_no_pod_has_a_token", "needs_cluster"))  # type: ignore[arg-type]


def test_on_an_engine_what_inspects_pods_is_left_out() -> None:
    run = Run(options=chosen(), redact=Redactor(), target=from_exports(EXPORTS, chosen()))

    assert "on a Docker engine" in left_out(run, FakeItem("test_no_pod_has_a_token", "needs_cluster"))  # type: ignore[arg-type]


def test_a_bare_address_has_neither_services_nor_an_engine() -> None:
    found = from_exports(EXPORTS, chosen())
    run = Run(options=chosen(), redact=Redactor(), target=replace(found, deployment=None))

    for marker in ("needs_stack", "needs_engine", "needs_cluster", "needs_shell"):
        assert "--url does not give" in left_out(run, FakeItem("test_it", marker))  # type: ignore[arg-type]
