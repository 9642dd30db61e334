"""An official compose folder, laid out again from a file of facts (tests/facts/compose-*.json).

The facts are the resolved form; what the folder resolves by itself is written as upstream writes it: one file of
shared variables with `${NAME:-default}` and a merge key, or `env_file` lists since 1.14.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

FACTS = Path(__file__).parent / "facts"
RELEASES = ("1.12.1", "1.14.2", "1.17-pre")
SHARED = ("api", "worker", "worker_beat")
SOCKET = "NGINX_SOCKET_IO_UPSTREAM"
# Keys of a service that hold text as it was written, variables and all; the rest is resolved.
WRITTEN = ("command", "entrypoint", "healthcheck")
COPIED = (
    *WRITTEN,
    "cap_add",
    "depends_on",
    "expose",
    "networks",
    "ports",
    "privileged",
    "profiles",
    "restart",
    "user",
)


def facts(release: str) -> dict[str, Any]:
    """Return the facts of a release's compose folder."""
    return dict(json.loads((FACTS / f"compose-{release}.json").read_text(encoding="utf-8")))


def lay_out(folder: Path, release: str) -> Path:
    """Write the folder of a release's facts and return it."""
    known = facts(release)
    folder.mkdir(parents=True, exist_ok=True)
    _write_env(folder / ".env.example", known["env_example"])
    for path, values in known["env_files"].items():
        _write_env(folder / path, values)
    _write_compose(folder / "docker-compose.yaml", known)
    _write_nginx(folder / "nginx" / "conf.d" / "default.conf.template", known["routes"])
    return folder


def _write_env(path: Path, values: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}={_quoted(value)}\n" for name, value in values.items()), encoding="utf-8")


def _quoted(value: str) -> str:
    """Write a value so that a .env file gives it back; the facts hold variables as they were written."""
    if not value or (not set(value) & set(" \t#'\"\\\n") and value == value.strip()):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _write_compose(path: Path, known: Mapping[str, Any]) -> None:
    services = known["services"]
    shared = _shared(known)
    document: dict[str, Any] = {"x-shared-env": shared, "services": {}}
    for name, service in services.items():
        written = {key: service[key] for key in COPIED if service.get(key)}
        if service["image"]:
            written["image"] = _escaped(service["image"])
        if service["volumes"]:
            written["volumes"] = service["volumes"]
        if service["env_file"]:
            written["env_file"] = [{"path": one, "required": False} for one in service["env_file"]]
        from_files = _from_files(service, known)
        own: dict[str, Any] = {
            key: _escaped(text) for key, text in service["variables"].items() if key not in from_files
        }
        if shared and name in SHARED:
            own = {"<<": shared, **{key: text for key, text in own.items() if key not in shared}}
        if own:
            written["environment"] = own
        document["services"][name] = written
    document["networks"] = known["networks"]
    document["volumes"] = dict.fromkeys(known["volumes"])
    path.write_text(yaml.dump(document, Dumper=_Dumper, sort_keys=False), encoding="utf-8")


class _Dumper(yaml.SafeDumper):
    """Writes `<<` as the merge key that it is, and what several services share as an anchor."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:merge" if text == "<<" else "tag:yaml.org,2002:str", text
    ),
)


def _shared(known: Mapping[str, Any]) -> dict[str, str]:
    """Return what the services of one file of variables share, as upstream writes it before 1.14."""
    services = known["services"]
    if services["api"]["env_file"]:
        return {}
    first, *others = (services[name]["variables"] for name in SHARED)
    return {
        name: f"${{{name}:-{_escaped(value)}}}"
        if known["env_example"].get(name) == value
        else _escaped(value)
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }


def _from_files(service: Mapping[str, Any], known: Mapping[str, Any]) -> set[str]:
    """Return the variables that a service has from its own files alone, with the value that it has.

    The facts leave out what the project's own file would add.
    """
    found: dict[str, str] = {}
    for name in service["env_file"]:
        found |= known["env_files"].get(name.removeprefix("./") + ".example", {})
    return {name for name, value in found.items() if service["variables"].get(name) == value}


def _escaped(value: str) -> str:
    return value.replace("$", "$$")


def _write_nginx(path: Path, routes: list[dict[str, str | None]]) -> None:
    blocks = []
    for route in routes:
        location, target = route["location"], route["proxy_pass"]
        # Upstream's placeholder for a challenge, which the facts' extraction took for a location.
        if location == "$":
            continue
        lines = []
        if target is None:
            # WebSockets go to where a variable of nginx's container says.
            lines = [f"set $socket_io_upstream ${{{SOCKET}}};", "proxy_pass http://$socket_io_upstream;"]
        elif "$" in target:
            name = target.partition("$")[2]
            upstream = {
                "api_upstream": "api:5001",
                "web_upstream": "web:3000",
                "plugin_daemon_upstream": "plugin_daemon:5002",
            }[name]
            lines = [f'set ${name} "{upstream}";', f"proxy_pass {target};"]
        else:
            lines = [f"proxy_pass {target};"]
        blocks.append(
            f"    location {location} {{\n"
            + "".join(f"      {line}\n" for line in lines)
            + "      include proxy.conf;\n    }\n"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "server {\n    listen ${NGINX_PORT};\n    server_name ${NGINX_SERVER_NAME};\n\n"
        + "\n".join(blocks)
        + "\n    # placeholder for acme challenge location\n    ${ACME_CHALLENGE_LOCATION}\n"
        + "\n    ${HTTPS_CONFIG}\n}\n",
        encoding="utf-8",
    )
