"""Turn facts that were read from a real release into the `variables` section of a catalogue file.

Facts are three documents: the typed settings of Dify's api (a JSON schema of each), the resolved compose folder, and
the plugin daemon's settings. `tools/catalogue` writes what comes of them; docs/guides/releases.md says how to get them.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from infra.catalogue.names import compose_name, compose_services
from infra.catalogue.selection import partly_known, readers

Facts = Mapping[str, Any]
Entry = dict[str, Any]

# Read by the entry point of Dify's api image, or by code beside its typed settings.
ENTRY_POINT: Mapping[str, Entry] = {
    "MODE": {"type": "string", "values": ["api", "worker", "beat", "migration", "job"], "default": "api"},
    "MIGRATION_ENABLED": {"type": "boolean"},
    "INIT_PASSWORD": {"type": "string"},
    "DEBUG": {"type": "boolean", "default": False},
    "FLASK_DEBUG": {"type": "boolean", "default": False},
    "DIFY_BIND_ADDRESS": {"type": "string", "default": "0.0.0.0"},  # noqa: S104  # the image's own default
    "DIFY_PORT": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 5001},
    "SERVER_WORKER_AMOUNT": {"type": "integer", "minimum": 1, "default": 1},
    "SERVER_WORKER_CLASS": {"type": "string", "default": "gevent"},
    "SERVER_WORKER_CONNECTIONS": {"type": "integer", "minimum": 1, "default": 10},
    "GUNICORN_TIMEOUT": {"type": "integer", "minimum": 0, "default": 200},
    "CELERY_AUTO_SCALE": {"type": "boolean", "default": False},
    "CELERY_MAX_WORKERS": {"type": "string"},
    "CELERY_MIN_WORKERS": {"type": "string"},
    "CELERY_WORKER_AMOUNT": {"type": "string", "default": 1},
    "CELERY_WORKER_CLASS": {"type": "string", "default": "gevent"},
    "CELERY_WORKER_CONCURRENCY": {"type": "string"},
    "CELERY_WORKER_POOL": {"type": "string"},
    "CELERY_WORKER_QUEUES": {"type": "string"},
    "CELERY_QUEUES": {"type": "string"},
    "CELERY_PREFETCH_MULTIPLIER": {"type": "integer", "minimum": 0, "default": 1},
    "MAX_TASKS_PER_CHILD": {"type": "integer", "minimum": 1, "default": 50},
    "BROKER_USE_SSL": {"type": "boolean"},
    "UV_CACHE_DIR": {"type": "string"},
    "OPENDAL_FS_ROOT": {"type": "string"},
    "OPENAI_API_BASE": {"type": "string"},
    "VIKINGDB_SCHEMA": {"type": "string"},
    "API_TOOL_DEFAULT_CONNECT_TIMEOUT": {"type": "integer", "minimum": 0, "default": 10},
    "API_TOOL_DEFAULT_READ_TIMEOUT": {"type": "integer", "minimum": 0, "default": 60},
    "PROMPT_GENERATION_MAX_TOKENS": {"type": "integer", "minimum": 0},
    "CODE_GENERATION_MAX_TOKENS": {"type": "integer", "minimum": 0},
}
# Read by name from the environment, by code that compose hands them to.
_READ_DIRECTLY = ("ALIYUN_SLS_", "DIFY_ENV_NACOS_", "LOGSTORE_", "OPENDAL_")
# Services whose types come from facts of their code; the compose folder tells those of the others by name alone.
_TYPED = ("api", "plugin-daemon")
_BOUNDS = {
    "minimum": "minimum",
    "exclusiveMinimum": "above",
    "maximum": "maximum",
    "exclusiveMaximum": "below",
}
_GO_TYPES = {"bool": "boolean", "float64": "number", "time.Duration": "duration"}
_GO_INTEGERS = {"int": (None, None), "int64": (None, None), "uint16": (0, 65535)}
_UPPER = re.compile(r"[A-Z][A-Z0-9_]*")
_INTEGER = re.compile(r"-?\d+")
# What upstream publishes for these is no default to follow.
_SECRET = re.compile(r".*(PASSWORD|SECRET|_KEY|TOKEN|_DSN)(_ID)?|CELERY_BROKER_URL")


def variables(
    compose: Facts, settings: Facts | None = None, daemon: Facts | None = None
) -> dict[str, dict[str, Entry]]:
    """Return the entries of every service by name; types of what no typed facts tell are inferred from the values."""
    services: Facts = compose_services(compose["services"])
    found = {"api": _api(services["api"]["variables"], settings or {})}
    shared = _shared(services)
    if "plugin-daemon" in services:
        set_there = services["plugin-daemon"]["variables"]
        if daemon is None:
            found["plugin-daemon"] = _by_name({n: v for n, v in set_there.items() if n not in shared})
        else:
            found["plugin-daemon"] = {
                name: with_compose(name, _go(fact), set_there.get(name)) for name, fact in daemon.items()
            }
    for service in (*readers(), *sorted(partly_known())):
        if service in services and service not in _TYPED:
            set_there = services[service]["variables"]
            found[service] = _by_name(
                {
                    name: set_there[name]
                    for name in set_there
                    if _own(name, service, set_there, shared, found["api"])
                }
            )
    return {service: dict(sorted(entries.items())) for service, entries in found.items() if entries}


def _own(name: str, service: str, set_there: Facts, shared: set[str], api: Facts) -> bool:
    """Tell whether a service reads a name that compose hands to it, rather than another that gets the same file."""
    # What compose itself reads to set the variable without the prefix.
    input_of = name.removeprefix(f"{compose_name(service).upper()}_")
    return (
        name not in shared
        and not (input_of != name and input_of in set_there)
        and (service == "web" or name not in api)
    )


def _shared(services: Facts) -> set[str]:
    """Return the names that reach web and sandbox alike: both get files that are meant for others too."""
    both = [set(services[name]["variables"]) for name in ("web", "sandbox") if name in services]
    return set.intersection(*both) if len(both) > 1 else set()


def _api(set_there: Facts, settings: Facts) -> dict[str, Entry]:
    entries = {name: _typed(name, fact) for name, fact in settings.items() if _UPPER.fullmatch(name)}
    for name, entry in ENTRY_POINT.items():
        entries.setdefault(name, dict(entry))
    if not settings:
        entries = {name: {"type": "string"} for name in set_there} | entries
    for name in set_there:
        if name.startswith(_READ_DIRECTLY):
            entries.setdefault(name, {"type": "string"})
    return {name: with_compose(name, entry, set_there.get(name)) for name, entry in entries.items()}


def _typed(name: str, fact: Facts) -> Entry:
    """Return the entry of one typed setting, from its JSON schema."""
    choices = fact.get("anyOf", [fact])
    real = [choice for choice in choices if choice.get("type") != "null"]
    entry: Entry = {"type": _kind(real)}
    if len(real) < len(choices) or None in real[0].get("enum", ()):
        entry["nullable"] = True
    if len(real) == 1 and "enum" in real[0]:
        entry["values"] = [value for value in real[0]["enum"] if value is not None]
    if len(real) == 1:
        entry |= {ours: real[0][theirs] for theirs, ours in _BOUNDS.items() if theirs in real[0]}
    if fact.get("default") is not None and not _SECRET.fullmatch(name):
        entry["default"] = fact["default"]
    return entry


def _kind(choices: list[Facts]) -> str:
    """Return the type of a setting; one that takes several takes any text."""
    if len(choices) != 1:
        return "string"
    kind = choices[0].get("type", "string")
    return "url" if choices[0].get("format") == "uri" else str(kind)


def _go(fact: Facts) -> Entry:
    """Return the entry of one setting of the plugin daemon, which is written in Go."""
    kind = fact["type"]
    entry: Entry = {"type": _GO_TYPES.get(kind, "integer" if kind in _GO_INTEGERS else "string")}
    low, high = _GO_INTEGERS.get(kind, (None, None))
    entry |= {name: value for name, value in (("minimum", low), ("maximum", high)) if value is not None}
    rules = fact.get("validate", "").split(",")
    for rule in rules:
        if rule.startswith("oneof="):
            entry["values"] = rule.removeprefix("oneof=").split()
    default = fact.get("default")
    # Some defaults are expressions of the code.
    if default is not None and (entry["type"] == "string" or re.fullmatch(r"[\w.+-]*", default)):
        entry["default"] = default
    if "required" in rules and default is None:
        entry["required"] = True
    return entry


def _by_name(set_there: Facts) -> dict[str, Entry]:
    return {name: with_compose(name, {"type": _inferred(value)}, value) for name, value in set_there.items()}


def _inferred(value: str | None) -> str:
    if value in {"true", "false"}:
        return "boolean"
    return "integer" if value is not None and _INTEGER.fullmatch(value) else "string"


def with_compose(name: str, entry: Entry, value: str | None) -> Entry:
    """Add what compose sets, where that is not what the code takes anyway."""
    unset = value is None or (value == "" and "default" not in entry)
    if value is None or unset or _SECRET.fullmatch(name) or _alike(entry, value):
        return entry
    return entry | {"compose": value}


def _alike(entry: Entry, value: str) -> bool:
    if "default" not in entry:
        return False
    default = entry["default"]
    ours = str(default).lower() if isinstance(default, bool) else str(default)
    if entry["type"] in {"integer", "number"}:
        try:
            return float(ours) == float(value)
        except ValueError:
            return ours == value
    if entry["type"] == "boolean":
        return ours.lower() == value.lower()
    return ours.rstrip("/") == value.rstrip("/") if entry["type"] == "url" else ours == value


def section(entries: Mapping[str, Mapping[str, Entry]]) -> str:
    """Return the text of a `variables` section: a line a variable, so that a change reads well."""
    lines = ["variables:"]
    for service, variables_of in entries.items():
        lines.append(f"  {service}:")
        lines += [f"    {name}: {_flow(entry)}" for name, entry in variables_of.items()]
    return "\n".join(lines) + "\n"


def _flow(entry: Entry) -> str:
    text: str = yaml.safe_dump(
        entry, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True
    )
    return text.strip()
