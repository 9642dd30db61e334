"""LiteLLM as the LLM proxy's engine: settings, what is rendered, where keys go, and how a change goes live."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from dify_kit.stack import rendering
from infra.catalogue.container_paths import LITELLM_UID
from infra.catalogue.images import LITELLM_IMAGE
from infra.catalogue.releases import RELEASES
from infra.edge import check as nginx_check
from infra.edge import llm as edge_llm
from infra.edge.context import edge_context
from infra.edge.render import edge_configuration, edge_files
from infra.engine.runtime import Ran
from infra.platforms import litellm_image
from infra.platforms.images import pulled_name
from infra.platforms.litellm_image import PackagesError
from infra.resources import litellm_config as resource
from infra.resources.configuration import ConfigurationRejectedError
from infra.resources.litellm_config import (
    LitellmConfigProvider,
    go_live,
    masked,
    revision_of,
)
from infra.resources.revision_container import ContainerError
from infra.services import litellm
from infra.services import litellm_files as litellm_config
from infra.services.specs import networks, spec
from infra.settings.llm import Llm
from infra.settings.program import load
from infra.settings.stack import Settings
from support.certificates import issue
from support.configuration import configure, resolved, settings
from tests.unit.recording import CONTAINER, DYNAMIC, IMAGE, NETWORK, VOLUME, run_program
from tests.unit.test_render import written

KEYS = {"holysheep": "hs-" + "k" * 40, "backup": "sk-" + "b" * 40}
MASTER = "sk-master-0123456789-0123456789-0123456789"
LLM: dict[str, Any] = {
    "enabled": True,
    "engine": "litellm",
    "upstreams": {"holysheep": {}, "backup": {"preset": "openai", "timeoutSeconds": 7}},
    "models": {"gpt-4.1": ["holysheep", "backup:other"], "x/y:z": ["backup"]},
    "embeddings": {"text-embedding-3-small": ["backup"]},
}
SECRETS = {"llmKeys": json.dumps(KEYS), "litellmMasterKey": MASTER}
RUN: dict[str, Any] = {"plain": {"images": "registry", "llm": LLM}, "secrets": SECRETS}


def stack(**llm: Any) -> Settings:
    return settings({"llm": {**LLM, **llm}}, SECRETS)


def proxy(**llm: Any) -> Llm:
    found = stack(**llm).llm
    assert found is not None
    return found


def config(found: Llm, keys: Mapping[str, str] = KEYS) -> Any:
    return yaml.safe_load(litellm_config.texts(found, keys, MASTER, None)[litellm.CONFIG])


# --- settings ----------------------------------------------------------------------------------------------------


def test_nginx_is_the_engine_unless_told_otherwise() -> None:
    found = settings({"llm": {"enabled": True}}, {"llmKeys": json.dumps({"holysheep": "h" * 40})}).llm

    assert found is not None
    assert (found.engine, found.litellm) == ("nginx", None)
    assert proxy().engine == "litellm"


@pytest.mark.parametrize(
    ("llm", "master", "said"),
    [
        (
            {"engine": "envoy"},
            MASTER,
            "dify:llm.engine: 'envoy': not a possible value; use one of nginx, litellm",
        ),
        ({}, None, "dify:litellmMasterKey: the secret is not set; `dify-kit set litellmMasterKey --generate"),
        ({}, "sk-short", "dify:litellmMasterKey: has 8 characters"),
        (
            {
                "upstreams": {
                    "holysheep": {},
                    "backup": {"preset": "litellm", "baseUrl": "http://litellm:4000/v1"},
                }
            },
            MASTER,
            "dify:llm.upstreams.backup.baseUrl: 'http://litellm:4000/v1': is the stack's own LiteLLM",
        ),
        (
            {
                "upstreams": {
                    "holysheep": {"timeoutSeconds": 3000},
                    "backup": {"preset": "openai", "timeoutSeconds": 601},
                }
            },
            MASTER,
            "dify:llm.upstreams: '3601 s': is how long LiteLLM may try the upstreams of one model",
        ),
    ],
)
def test_what_cannot_work_is_told(llm: dict[str, Any], master: str | None, said: str) -> None:
    # None removes a key, whatever its type says.
    hidden: Any = {**SECRETS, "litellmMasterKey": master}
    configure({"llm": {**LLM, **llm}}, hidden)

    with pytest.raises(pulumi.RunError) as refused:
        load(pulumi.Config("dify"), "unit")

    assert said in str(refused.value)
    assert not any(key in str(refused.value) for key in (MASTER, *KEYS.values()))


@pytest.mark.parametrize(("memory", "fits"), [(511, False), (512, True), (2048, True)])
def test_its_memory_is_enough_to_start(memory: int, fits: bool) -> None:
    plain = {"llm": LLM, "resources": {"litellm": {"memory": memory}}}
    if fits:
        found = settings(plain, SECRETS)
        assert spec("litellm", found, found.dify).limits.memory == memory
        return
    with pytest.raises(pulumi.RunError, match=r"dify:resources\.litellm\.memory: '511'"):
        settings(plain, SECRETS)


def test_the_master_key_is_needed_for_nothing_else() -> None:
    hidden: Any = {"litellmMasterKey": None, "llmKeys": json.dumps(KEYS)}

    assert settings({"llm": {**LLM, "engine": "nginx"}}, hidden).llm is not None


# --- LiteLLM's configuration -------------------------------------------------------------------------------------


def test_each_way_to_a_model_is_a_deployment() -> None:
    told = config(proxy())

    found = {one["model_name"]: one["litellm_params"] for one in told["model_list"]}
    assert list(found) == ["gpt-4.1", "gpt-4.1#2", "x/y:z", "text-embedding-3-small"]
    first, second = found["gpt-4.1"], found["gpt-4.1#2"]
    assert (first["model"], first["api_base"]) == ("openai/gpt-4.1", "https://api.holysheep.ai/v1")
    assert (first["api_key"], first["timeout"]) == (KEYS["holysheep"], 300)
    assert (second["model"], second["api_base"]) == ("openai/other", "https://api.openai.com/v1")
    assert (second["api_key"], second["timeout"], second["stream_timeout"]) == (KEYS["backup"], 7, 7)
    assert told["router_settings"]["fallbacks"] == [{"gpt-4.1": ["gpt-4.1#2"]}]
    assert told["general_settings"]["master_key"] == MASTER


def test_without_a_second_choice_there_are_no_fallbacks() -> None:
    assert "fallbacks" not in config(proxy(models={"m": ["backup"]}))["router_settings"]


@pytest.mark.parametrize("key", ["sk-'\"{}<>&#: %x", "sk-\\n\\u0041-----", "null", "[1]"])
def test_keys_arrive_as_they_are(key: str) -> None:
    told = config(proxy(), {**KEYS, "backup": key})

    assert {one["litellm_params"]["api_key"] for one in told["model_list"]} == {KEYS["holysheep"], key}


def test_roots_of_upstreams_are_in_a_file_of_their_own(tmp_path: Path) -> None:
    ca = issue(ca=True, name="own").pem
    path = tmp_path / "ca.pem"
    path.write_text(ca)
    upstreams = {
        name: {"preset": "openai" if name == "backup" else "holysheep", "caFile": str(path)} for name in KEYS
    }

    assert litellm_config.texts(proxy(upstreams=upstreams), KEYS, MASTER, None)[litellm.ROOTS] == ca
    assert litellm_config.texts(proxy(), KEYS, MASTER, None)[litellm.ROOTS] == ""


def test_files_for_reading_have_no_key() -> None:
    found = proxy()
    text = json.dumps([litellm_config.hidden_files(found, None), dict(edge_llm.hidden_files(found))])

    assert "<dify:llmKeys.backup>" in text
    assert not any(key in text for key in (MASTER, *KEYS.values()))


# --- what nginx has ----------------------------------------------------------------------------------------------


def test_nginx_knows_litellm_and_no_upstream() -> None:
    found = stack()
    context = edge_context(found, RELEASES[found.release])
    assert context.llm is not None

    (one,) = context.llm.upstreams
    assert (one.name, one.scheme, one.authority, one.path) == ("litellm", "http", "litellm:4000", "/v1")
    # As long as LiteLLM may take: both upstreams, one after the other, and a little more.
    assert one.timeout_seconds > 300 + 7
    tables = json.loads(context.llm.tables)
    assert tables["chat"]["gpt-4.1"] == [{"upstream": "litellm", "model": "gpt-4.1"}]
    assert tables["embeddings"]["text-embedding-3-small"][0]["upstream"] == "litellm"
    assert not edge_llm.public_files(found.llm)


def test_nginxs_files_parse_and_gixy_finds_nothing(tmp_path: Path) -> None:
    found = stack()

    directory = written(edge_files(edge_context(found, RELEASES[found.release])), tmp_path)

    nginx_check.parse(directory)
    assert nginx_check.lint(directory) == []


def test_dify_kit_render_shows_the_configuration_without_keys() -> None:
    rendered = {one.service: one.files for one in rendering.rendered_files(stack())}

    told = yaml.safe_load(rendered["litellm"][f"{litellm.CURRENT}/{litellm.CONFIG}"])
    assert told["general_settings"]["master_key"] == "<dify:litellmMasterKey>"
    assert not any(key in json.dumps(rendered) for key in (MASTER, *KEYS.values()))
    assert "litellm" not in {one.service for one in rendering.rendered_files(settings())}


def test_nginx_sends_the_master_key_and_hides_all() -> None:
    told = json.loads(resolved(edge_llm.private_files(proxy()))[edge_llm.SECRETS_FILE])

    assert told["keys"] == {"litellm": MASTER}
    assert sorted(told["hidden"].split(" ")) == sorted([MASTER, *KEYS.values()])
    made = edge_llm.edge_llm(proxy())
    assert made is not None
    assert made.hidden == tuple(f"$llm_hidden_{number}" for number in range(len(KEYS) + 1))


def test_another_key_is_another_configuration_of_nginx() -> None:
    def revision(**secrets: str) -> str:
        found = settings({"llm": LLM}, {**SECRETS, **secrets})
        return edge_configuration(edge_context(found, RELEASES[found.release])).revision

    assert revision() == revision()
    assert (
        len(
            {
                revision(),
                revision(litellmMasterKey=MASTER + "x"),
                revision(llmKeys=json.dumps(KEYS | {"backup": "sk-" + "c" * 40})),
            }
        )
        == 3
    )


# --- the program -------------------------------------------------------------------------------------------------


def test_the_container_is_reached_by_nginx_alone() -> None:
    recorder = run_program(**RUN)
    containers = recorder.of(CONTAINER)
    one = containers["litellm"]

    assert not one.get("ports")
    joined = {
        name: {network["name"] for network in each["networksAdvanced"]}
        for name, each in containers.items()
        if each.get("networksAdvanced")
    }
    assert joined["litellm"] == {"dify-unit-litellm", "dify-unit-litellm_upstreams"}
    assert {name for name, found in joined.items() if "dify-unit-litellm" in found} == {"litellm", "nginx"}
    assert {name for name, found in joined.items() if "dify-unit-litellm_upstreams" in found} == {"litellm"}
    internal = {name: each.get("internal") for name, each in recorder.of(NETWORK).items()}
    assert (internal["litellm"], internal["litellm_upstreams"]) == (True, False)


def test_the_container_has_the_least_rights() -> None:
    one = run_program(**RUN).of(CONTAINER)["litellm"]

    assert one["user"] == str(LITELLM_UID)
    assert one["readOnly"]
    assert one["capabilities"] == {"drops": ["ALL"], "adds": []}
    assert one["securityOpts"] == ["no-new-privileges:true"]
    assert one["memory"] == 1024
    assert one["healthcheck"]["tests"][0] == "CMD"


def test_keys_go_into_private_files_and_nowhere_else() -> None:
    recorder = run_program(**RUN)
    dynamic = recorder.of(DYNAMIC)

    told = yaml.safe_load(dynamic["litellm-config"]["files"][litellm.CONFIG])
    assert told["general_settings"]["master_key"] == MASTER
    assert dynamic["litellm-config"]["owner"] == LITELLM_UID
    assert json.loads(dynamic["nginx-config"]["private_files"][edge_llm.SECRETS_FILE])["keys"] == {
        "litellm": MASTER
    }
    elsewhere = json.dumps([recorder.of(CONTAINER), dynamic["nginx-config"]["files"]], default=str)
    assert not any(key in elsewhere for key in (MASTER, *KEYS.values()))


def test_nothing_of_it_is_there_with_nginx_as_the_engine() -> None:
    plain = {**RUN["plain"], "llm": {**LLM, "engine": "nginx"}}
    recorder = run_program(plain, secrets=SECRETS)

    names = [name for kind in (CONTAINER, NETWORK, VOLUME, IMAGE, DYNAMIC) for name in recorder.of(kind)]
    assert not [name for name in names if "litellm" in name]
    assert "volume-litellm" in run_program(**RUN).of(VOLUME)
    found = settings({"llm": {**LLM, "engine": "nginx"}}, SECRETS)
    assert not {name for name in networks(found, RELEASES[found.release]) if "litellm" in name}


def test_a_mirror_takes_the_place_of_the_images_registry() -> None:
    assert pulled_name(LITELLM_IMAGE, "") == f"ghcr.io/berriai/litellm:{LITELLM_IMAGE.tag}"
    mirrored = pulled_name(LITELLM_IMAGE, "registry.example.com/dify/")
    assert mirrored == f"registry.example.com/dify/berriai/litellm:{LITELLM_IMAGE.tag}"


def test_the_image_that_is_built_has_the_version_of_the_official_one() -> None:
    pinned = (litellm_image.DIRECTORY / "requirements.in").read_text(encoding="utf-8").split()

    assert pinned == [f"litellm[proxy]=={LITELLM_IMAGE.tag.removeprefix('v')}"]
    lock = (litellm_image.DIRECTORY / "requirements.lock").read_text(encoding="utf-8")
    assert f"litellm=={LITELLM_IMAGE.tag.removeprefix('v')} \\\n    --hash=sha256:" in lock
    assert "://" not in lock


def test_packages_that_cannot_be_had_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PackagesError, match="make packages"):
        litellm_image._install(tmp_path, None, {})
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho no route to the index >&2; exit 2\n")
    uv.chmod(0o755)
    with pytest.raises(PackagesError, match=r"no route to the index"):
        litellm_image._install(tmp_path, str(uv), {})
    monkeypatch.setattr("infra.platforms.litellm_image.platform.machine", lambda: "riscv64")
    with pytest.raises(PackagesError, match=r"riscv64; use dify:images registry"):
        litellm_image._install(tmp_path, str(uv), {})


def test_a_context_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    home = tmp_path / "dify-kit" / "litellm"

    def broken(target: Path, *_: object) -> None:
        target.mkdir()
        raise PackagesError("cut off")

    monkeypatch.setattr(litellm_image, "_install", broken)
    with pytest.raises(PackagesError):
        litellm_image.prepared_context("abc")
    assert [path.name for path in home.iterdir()] == ["lock"]

    monkeypatch.setattr(litellm_image, "_install", lambda target, *_: target.mkdir())
    made = litellm_image.prepared_context("abc")
    assert {path.name for path in made.iterdir()} == {"Dockerfile", "packages"}
    monkeypatch.setattr(litellm_image, "_install", broken)
    assert litellm_image.prepared_context("abc") == made


# --- going live --------------------------------------------------------------------------------------------------

FILES = {litellm.CONFIG: f'general_settings:\n  master_key: "{MASTER}"\n', litellm.ROOTS: ""}
OTHER = {**FILES, litellm.ROOTS: "other"}


class PaperContainer:
    """LiteLLM that reads what `reads` says and serves what `serves` says; `link` is what runs at its next start."""

    def __init__(
        self, link: str = "", *, reads: bool = True, serves: Callable[[str], bool] = lambda _: True
    ) -> None:
        self.link = link
        self.served = link
        self.written = {link} if link else set()
        self.reads = reads
        self.serves = serves
        self.restarts = 0

    def current(self) -> str:
        return self.link

    def write(self, revision: str, files: Mapping[str, str], private: Mapping[str, str], owner: int) -> None:
        assert not files, "nothing here is for everybody"
        assert (owner, set(private)) == (LITELLM_UID, {litellm.CONFIG, litellm.ROOTS})
        self.written.add(revision)

    def accepts(self, revision: str) -> Ran:
        assert revision in self.written
        return Ran(code=0 if self.reads else 1, output="" if self.reads else f"refused: TypeError: {MASTER}")

    def switch(self, revision: str) -> None:
        assert revision in self.written
        self.link = revision
        if not self.served:
            # It waits for its first configuration, and starts by itself.
            self.served = revision

    def restart(self) -> None:
        self.restarts += 1
        self.served = self.link

    def running(self) -> str:
        return self.served if self.serves(self.served) else ""

    def discard(self, revision: str) -> None:
        assert revision != self.link
        self.written.remove(revision)

    def keep(self, revisions: list[str]) -> None:
        self.written = set(revisions)

    def forget(self) -> None:
        self.link = ""

    def last_logs(self) -> str:
        return f"its last words, and {MASTER}"


def props(files: Mapping[str, str]) -> dict[str, Any]:
    return {"container": "c" * 64, "files": dict(files), "owner": float(LITELLM_UID)}


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "LIVE_SECONDS", 0.05)
    monkeypatch.setattr(resource, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr("infra.resources.litellm_config.time.sleep", lambda _: None)


def live(container: PaperContainer, files: Mapping[str, str]) -> str:
    paper: Any = container
    return go_live(paper, props(files))


def test_the_first_configuration_starts_it() -> None:
    one = PaperContainer()

    assert live(one, FILES) == one.link == one.served == revision_of(FILES)
    assert one.restarts == 0


def test_another_configuration_restarts_it_and_the_old_one_is_gone() -> None:
    one = PaperContainer(revision_of(FILES))

    live(one, OTHER)

    assert (one.served, one.restarts, one.written) == (revision_of(OTHER), 1, {revision_of(OTHER)})


def test_the_same_configuration_changes_nothing() -> None:
    one = PaperContainer(revision_of(FILES))

    live(one, FILES)

    assert one.restarts == 0


def test_what_it_cannot_read_never_goes_live() -> None:
    one = PaperContainer(revision_of(FILES), reads=False)

    with pytest.raises(ConfigurationRejectedError, match=r"the old one stays: TypeError") as refused:
        live(one, OTHER)

    assert MASTER not in str(refused.value)
    assert (one.served, one.restarts, one.written) == (revision_of(FILES), 0, {revision_of(FILES)})


def test_a_machine_that_is_too_busy_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    one = PaperContainer(revision_of(FILES))
    monkeypatch.setattr(one, "accepts", lambda _: Ran(code=resource.TIMED_OUT, output=""))

    with pytest.raises(ContainerError, match="Run the same command again"):
        live(one, OTHER)

    assert (one.served, one.restarts, one.written) == (revision_of(FILES), 0, {revision_of(FILES)})


def test_what_does_not_answer_is_taken_back() -> None:
    one = PaperContainer(revision_of(FILES), serves=lambda revision: revision == revision_of(FILES))

    with pytest.raises(ContainerError, match="its last words") as failed:
        live(one, OTHER)

    assert MASTER not in str(failed.value)
    assert (one.served, one.link) == (revision_of(FILES), revision_of(FILES))
    assert one.written == {revision_of(FILES)}


def test_a_first_one_that_does_not_answer_is_forgotten() -> None:
    one = PaperContainer(serves=lambda _: False)

    with pytest.raises(ContainerError):
        live(one, FILES)

    assert (one.link, one.restarts) == ("", 1)


def test_keys_are_masked_in_whatever_form() -> None:
    text = f'a:\n  api_key: sk-plain-key\n  master_key: "{MASTER}"\n'

    assert masked(f"sk-plain-key and {MASTER}", {litellm.CONFIG: text}) == "**** and ****"


def test_only_another_configuration_or_container_is_a_change() -> None:
    provider, old = LitellmConfigProvider(), {**props(FILES), "revision": revision_of(FILES)}

    assert not provider.diff("", old, props(FILES)).changes
    assert provider.diff("", old, props(OTHER)).changes
    moved = provider.diff("", old, {**props(FILES), "container": "d" * 64})
    assert (moved.changes, moved.replaces) == (True, ["container"])
