"""What a service accepts in its environment: the type of each variable, its allowed values and bounds.

Imports nothing of Pulumi, so that the stand-in's image validates with the same code. The entries come from the facts
of real releases (`infra/catalogue/*.yaml`).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.catalogue import checks

# Pydantic's spellings and, within them, those of Go's strconv.ParseBool.
BOOLEANS = frozenset({"true", "false", "1", "0", "yes", "no", "on", "off", "t", "f", "y", "n"})
_GO_BOOLEANS = frozenset({"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"})
_GO_DURATION = re.compile(
    r"[-+]?(0|(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*)"
)
_INTEGER = re.compile(r"[-+]?\d+(_\d+)*", re.ASCII)
TYPES = frozenset({"string", "integer", "number", "boolean", "url", "object", "duration"})

# Read by the process of any service, or by its runtime's libraries.
PROCESS_VARIABLES = frozenset(
    {
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "TZ",
        "LANG",
        "LC_ALL",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "NODE_OPTIONS",
        "GUNICORN_CMD_ARGS",
        "GODEBUG",
        "GOGC",
        "GOMAXPROCS",
        "GOMEMLIMIT",
    }
)
_PROCESS_PREFIXES = ("PYTHON", "OTEL_", "MALLOC_")


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One variable that a service reads.

    `type` is one of TYPES; `values` are the only ones allowed, when there are any. `minimum` and `maximum` are
    inclusive, `above` and `below` exclusive. `default` is what the code takes without the variable, `compose` what the
    official compose folder sets where that is something else. `required` ends the start without it. `go` marks a
    service that reads numbers and booleans as Go does.
    """

    name: str
    type: str = "string"
    nullable: bool = False
    values: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    default: str | None = None
    compose: str | None = None
    required: bool = False
    go: bool = False

    def problem(self, value: str) -> str | None:
        """Return what is wrong with a value, without the value, or None."""
        if self.values:
            return None if value in self.values else f"not one of {', '.join(self.values)}"
        check = {
            "integer": self._integer,
            "number": self._number,
            "boolean": self._boolean,
            "url": _url,
            "object": _object,
            "duration": _duration,
        }.get(self.type)
        return check(value) if check else None

    def _integer(self, value: str) -> str | None:
        if not _INTEGER.fullmatch(value.strip() if not self.go else value) or (self.go and "_" in value):
            return "not a whole number"
        return self._bounds(int(value))

    def _number(self, value: str) -> str | None:
        try:
            return self._bounds(float(value))
        except ValueError:
            return "not a number"

    def _bounds(self, number: float) -> str | None:
        bounds = (
            (self.minimum is not None and number < self.minimum, "less than", self.minimum),
            (self.above is not None and number <= self.above, "not above", self.above),
            (self.maximum is not None and number > self.maximum, "more than", self.maximum),
            (self.below is not None and number >= self.below, "not below", self.below),
        )
        broken = [f"{words} {limit:g}" for wrong, words, limit in bounds if wrong]
        return " and ".join(broken) or None

    def _boolean(self, value: str) -> str | None:
        known = value in _GO_BOOLEANS if self.go else value.lower() in BOOLEANS
        return None if known else "neither true nor false"


def _url(value: str) -> str | None:
    return None if checks.http_url(value) else "not an address that starts with http:// or https://"


def _object(value: str) -> str | None:
    try:
        found = json.loads(value)
    except ValueError:
        found = ()
    return None if found is None or isinstance(found, dict) else "no JSON object"


def _duration(value: str) -> str | None:
    return None if _GO_DURATION.fullmatch(value) else "no duration such as 30s"


def is_process_variable(name: str) -> bool:
    """Tell whether the process or a library of the service reads the name, rather than the service itself."""
    return name in PROCESS_VARIABLES or name.startswith(_PROCESS_PREFIXES)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like a wrong one, if any is."""
    return checks.closest(name.upper(), known, cutoff)


def problems(
    variables: Mapping[str, Variable], environment: Mapping[str, str], *, complete: bool = True
) -> dict[str, str]:
    """Return what is wrong with an environment: by name, what is wrong. Empty when nothing is wrong.

    Not `complete`: the service reads more names than `variables` has, and only a likely typing error is wrong.
    """
    found: dict[str, str] = {}
    for name, value in environment.items():
        variable = variables.get(name)
        if variable is not None:
            words = variable.problem(value)
        elif is_process_variable(name):
            words = None
        else:
            near = nearest(name, variables, cutoff=0.6 if complete else 0.9)
            words = None
            if complete or near:
                words = "no variable of this service" + (f": did you mean {near}?" if near else "")
        if words:
            found[name] = words
    return found


def read(name: str, entry: Mapping[str, Any], *, go: bool = False) -> Variable:
    """Return the variable that an entry of a catalogue file describes. Raises ValueError that says what is wrong."""
    fields = dict(entry)
    kind = fields.get("type", "string")
    if kind not in TYPES:
        raise ValueError(f"type is {kind!r}: it is one of {', '.join(sorted(TYPES))}")
    unknown = fields.keys() - Variable.__dataclass_fields__.keys() | fields.keys() & {"name", "go"}
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: not a part of a variable")
    for part in ("minimum", "above", "maximum", "below"):
        if not isinstance(fields.get(part, 0), (int, float)):
            raise ValueError(f"{part} is {fields[part]!r}: it is a number")  # noqa: TRY004  # a fault of the file
    fields["values"] = tuple(str(value) for value in fields.get("values", ()))
    for part in ("default", "compose"):
        if fields.get(part) is not None:
            fields[part] = spelled(fields[part])
    return Variable(name=name, go=go, **fields)


def spelled(value: object) -> str:
    """Return a value in the form of an environment variable."""
    return str(value).lower() if isinstance(value, bool) else str(value)
