"""The documentation against the code: links, settings, defaults, variables, commands, templates, error messages."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from dify_kit.__main__ import app
from dify_kit.app import Group
from infra.catalogue.project import ROOT, declared
from infra.catalogue.releases import RELEASES
from infra.catalogue.route_groups import cors_groups
from infra.catalogue.selection import jobs, vector_stores, without_variables
from infra.services.environment import BUILDERS, environment
from infra.settings.urls import URL_PARTS
from infra.settings.vector_server import KINDS
from support.configuration import settings
from tests import oauth_guide

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
        ROOT / "templates" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
SETTINGS = ROOT / "docs" / "reference" / "settings.md"
TROUBLESHOOTING = ROOT / "docs" / "guides" / "troubleshooting.md"

# Parts of objects whose default is empty. <service> stands for any service's name.
PARTS: Mapping[str, tuple[str, ...]] = {
    "cors": cors_groups(),
    "urls": URL_PARTS,
    "resources": ("<service>.memory", "<service>.cpus", "<service>.pids"),
}
# Objects whose parts are objects of one kind: the page explains them once.
WHOLE = frozenset({"rateLimits", "llm", "oauth.limits", "modelProviders.proxy"})
PART_TYPES = {"cors": "array", "urls": "string"}
PART_DEFAULTS: Mapping[str, Any] = {"cors": [], "urls": ""}
# Every feature on, so that every variable is made.
FULL: Mapping[str, Any] = {
    "mail": {"from": "dify@example.com", "server": "smtp.example.com", "username": "dify"},
    "login": {"social": True, "githubClientId": "github", "googleClientId": "google"},
    "telemetry": {"otlpEndpoint": "http://collector.example.com:4318"},
    "retention": {"workflowRunDays": 90, "messageDays": 365},
    "urls": {"app": "http://app.example.com", "console": "http://console.example.com"},
    "images": "registry",
}
FULL_SECRETS = {
    "modelCredentials": json.dumps({"openai": {"openai_api_key": "sk-0123456789"}}),
    "mailPassword": "mail-password",
    "storageSecretKey": "storage-secret",
    "githubClientSecret": "github-secret",
    "googleClientSecret": "google-secret",
    "oidcGateClientSecret": "gate-secret",
    "llmKeys": json.dumps({"holysheep": "hs-" + "k" * 30, "backup": "sk-" + "k" * 30}),
}
S3 = {"type": "s3", "bucket": "uploads", "accessKey": "access"}
# With the passwords that the last one needs.
OWN_DATA: tuple[dict[str, Any], dict[str, str]] = ({}, {})
EXTERNAL_DATA: tuple[dict[str, Any], dict[str, str]] = (
    {"database": {"host": "db.example.com"}, "redis": {"host": "cache.example.com", "user": "dify"}},
    {"externalDatabasePassword": "database-password", "externalRedisPassword": "redis-password"},
)


def outside(store: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings of a vector store outside of the stack."""
    server = {"host": "vectors.example.com"} | ({"user": "dify"} if KINDS[store].user else {})
    return {"vectorServer": server}, {"externalVectorPassword": "vector-password"}


_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return [body for kind, body in _FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> Iterator[str]:
    """Yield what a page tells people to type: lines of shell blocks, and code in its text."""
    for block in blocks(page, "sh"):
        yield from (line.split(" #")[0] for line in block.replace("\\\n", " ").splitlines())
    yield from _CODE.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a settings table."""

    key: str
    kind: str
    default: str
    variables: tuple[str, ...]


@cache
def rows() -> list[Row]:
    found = []
    for line in prose(SETTINGS).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            key, kind, default, _, variables = cells
            named = tuple(name for name in _CODE.findall(variables) if name.isupper())
            found.append(Row(key=key.strip("`"), kind=kind, default=default.strip("`"), variables=named))
    return found


def expected_rows() -> dict[str, tuple[str, Any]]:
    """Return every setting and part of a setting with its type and default."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}
    found: dict[str, tuple[str, Any]] = {}
    for key, entry in declared().items():
        default = entry.get("default")
        if key in PART_TYPES:
            found |= {f"{key}.{part}": (PART_TYPES[key], PART_DEFAULTS[key]) for part in PARTS[key]}
        elif key in PARTS:
            found |= {f"{key}.{part}": ("", None) for part in PARTS[key]}
        elif isinstance(default, dict) and default:
            found |= {part: (names[type(value)], value) for part, value in _parts(key, default)}
        else:
            found[key] = (str(entry["type"]), default)
    return found


def _parts(key: str, default: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every part of an object, however deep, with its default; those of WHOLE in one piece."""
    for part, value in default.items():
        if isinstance(value, dict) and value and key not in WHOLE:
            yield from _parts(f"{key}.{part}", value)
        else:
            yield f"{key}.{part}", value


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert target.is_relative_to(ROOT), f"{link}: outside of the project"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in _LINK.findall(prose(page)):
            target = (page.parent / link.partition("#")[0]).resolve()
            if "://" not in link:
                waiting += sorted(target.glob("*.md")) if target.is_dir() else []
                waiting += [target] if target.suffix == ".md" else []

    assert [name_of(page) for page in PAGES if page not in reached and page.name != "CHANGELOG.md"] == []


def test_every_setting_is_documented_once_and_no_other() -> None:
    assert sorted(row.key for row in rows()) == sorted(expected_rows())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.key)
def test_documented_type_and_default_are_those_of_the_code(row: Row) -> None:
    kind, default = expected_rows()[row.key]
    if not kind:
        return

    assert row.kind == kind
    assert yaml.safe_load(row.default) == default


def made_variables() -> set[str]:
    """Return the variables that the settings can make for any service of any release."""
    found: set[str] = set()
    stores = [(one, data) for one in sorted(vector_stores()) for data in (OWN_DATA, EXTERNAL_DATA)]
    stores += [(one, outside(one)) for one in KINDS]
    for release, mail, storage, (vector, (data, passwords)) in product(
        RELEASES.values(),
        ("smtp", "resend", "sendgrid"),
        ({}, S3),
        stores,
    ):
        plain = {**FULL, **data, "release": release.version, "storage": storage, "vectorStore": vector}
        full = settings(plain | {"mail": {**FULL["mail"], "type": mail}}, FULL_SECRETS | passwords)
        services = (release.services | jobs()) - without_variables()
        for service in services | ({vector} & BUILDERS.keys()):
            found |= set(environment(service, full, release))
    return found


def test_documented_variables_exist() -> None:
    documented = {name for row in rows() for name in row.variables}

    assert len(documented) > 80
    assert documented - made_variables() == set()


YAML_BLOCKS = [(name_of(page), block) for page in PAGES for block in blocks(page, "yaml")]


@pytest.mark.parametrize(("page", "block"), YAML_BLOCKS)
def test_example_settings_work(
    page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del page
    if "~/" in block:
        monkeypatch.setenv("HOME", str(tmp_path))
        oauth_guide.make_apps(tmp_path)
    given = {key.removeprefix("dify:"): value for key, value in yaml.safe_load(block)["config"].items()}
    base = {} if given.get("images") or given.get("vectorStore") else {"images": "local"}

    settings(base | given, FULL_SECRETS)


def test_every_language_of_a_block_is_known() -> None:
    found = {kind for page in PAGES for kind, _ in _FENCE.findall(page.read_text(encoding="utf-8"))}

    assert found <= {"sh", "yaml", "nginx", "mermaid", "html", "python", "js", "sql", "text"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {
        target for command in commands(page) for target in re.findall(r"(?:^|&& )make ([a-z-]+)", command)
    }

    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_their_options_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, Group)
    for command in commands(page):
        for name, rest in re.findall(r"(?:^|/|&& |\()dify-kit ([a-z]+(?:-[a-z]+)*)([^&|>;)]*)", command):
            assert name in group.commands, command
            found = group.commands[name]
            # `usage` does something by itself.
            words = [word for word in rest.split() if not word.startswith("-")]
            if isinstance(found, Group) and rest.split()[:1] == words[:1] != []:
                assert words[0] in found.commands, command
                found = found.commands[words[0]]
            options = {option for parameter in found.params for option in parameter.opts}
            options |= {option for p in found.params for option in p.secondary_opts}
            assert set(re.findall(r" (--[a-z-]+)", rest)) <= options | {"--help"}, command


def test_every_template_is_listed_and_no_other() -> None:
    text = prose(ROOT / "templates" / "README.md").split("## ")[0]
    listed = re.findall(r"^\| `([^`]+\.(?:j2|js))` \|", text, re.MULTILINE)
    templates = ROOT / "templates"
    sources = [path for suffix in ("j2", "js") for path in templates.rglob(f"*.{suffix}")]

    assert sorted(listed) == sorted(str(path.relative_to(templates)) for path in sources)


@cache
def spoken() -> str:
    """Return every text of the code, one a line, with "..." for what is filled in."""
    texts = []
    sources = [ROOT / "tools" / "bootstrap", ROOT / "standin" / "dify_standin" / "web.py"]
    sources += [*(ROOT / "infra").rglob("*.py"), *(ROOT / "dify_kit").rglob("*.py")]
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
                texts.append("".join(map(str, parts)))
    texts += [
        path.read_text(encoding="utf-8") for path in (ROOT / "templates" / "nginx" / "njs").glob("*.js")
    ]
    return "\n".join(text.replace("`", "") for text in texts)


def told_errors() -> list[str]:
    """Return the messages that troubleshooting.md explains."""
    tables = re.findall(r"^\| it says \|.*\n\|[-|]+\n((?:\|.*\n)+)", prose(TROUBLESHOOTING), re.MULTILINE)
    lines = [line for table in tables for line in table.splitlines()]
    return [message for line in lines for message in _CODE.findall(line.split(" | ")[0])]


def test_errors_are_explained() -> None:
    assert len(told_errors()) > 50


@pytest.mark.parametrize("message", told_errors())
def test_explained_errors_are_those_of_the_code(message: str) -> None:
    for part in message.split("..."):
        words = part.strip(" :;,")
        if len(words) > 3:
            assert words in spoken(), f"nothing says {words!r}"
