"""Pulumi's engine events, as lines a person can follow.

Pulumi writes one JSON event a line to its event log (``sdk/go/common/apitype/events.go``). This module turns
them into one line per change, keeps what is under way for the heartbeat, and reduces errors - which Pulumi
prints three times, as tracebacks or as nested Terraform lists - to their text, once.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_DIRECTIVE = re.compile(r"<\{%.*?%\}>")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = re.compile(
    r"^(?:During handling of the above exception, another exception occurred|"
    r"The above exception was the direct cause of the following exception):$"
)
_RAISED = re.compile(r"^((?:\w+\.)*)(\w+)(?:: |$)")
# Exceptions of our own carry a complete message; the names of others say what happened.
_OURS = ("infra.", "dify_kit.")
_PLAIN_ERRORS = {"Exception", "RunError", "KitError", "RuntimeError"}
_TERRAFORM_PREFIX = re.compile(r"^\s*(?:sdk-v2/provider2\.go:\d+: )?(?:sdk\.helper_schema: )?")
_TERRAFORM_SUFFIX = re.compile(r"(?:: )?provider=docker@[\w.+-]+\s*$")
_CREATING = re.compile(r"^(?:creating|updating|deleting|refreshing|reading) urn:\S+: ")
_COUNTED = re.compile(r"^\d+ errors? occurred:\s*")
_BULLET = re.compile(r"^\s*\* ", re.MULTILINE)

# Lines that repeat an error, or are for Pulumi's developers.
_NOISE = (
    re.compile(r"^an unhandled error occurred: program exited with non-zero exit code: \d+$"),
    re.compile(r"^(?:update|preview|destroy|refresh|resource .*) failed$"),
    re.compile(r"^using pulumi-\S+ from \$PATH at "),
    re.compile(r"^update canceled$"),
    re.compile(r"^resource monitor shut down while waiting on step's done channel$"),
    re.compile(r"^the process exited without being able to communicate"),
    re.compile(r"^If you would prefer to (?:skip|use)|^To (?:resolve|silence)"),
)

_VERBS = {
    "create": ("+", "created"),
    "create-replacement": ("+", "replaced"),
    "update": ("~", "updated"),
    "delete": ("-", "removed"),
    "delete-replaced": ("-", "removed to be replaced"),
    "discard": ("-", "dropped from the state"),
    "discard-replaced": ("-", "dropped from the state"),
    "import": ("=", "imported"),
    "read": ("=", "read"),
}
_PLANS = {
    "create": ("+", "create"),
    "create-replacement": ("+", "create"),
    "update": ("~", "update"),
    "delete": ("-", "remove"),
    "delete-replaced": ("-", "remove"),
    "replace": ("±", "replace"),
    "import": ("=", "import"),
}
# A replacement announces itself by three operations; one line is enough.
_PLANNED_ONCE = {"create-replacement", "delete-replaced"}
_SLOW = {"remote image", "image"}


def clean(text: str) -> str:
    """Return the human part of a Pulumi diagnostic.

    A Python traceback becomes the text of its last exception, a nested Terraform error list its entries.
    """
    text = _ANSI.sub("", _DIRECTIVE.sub("", text)).strip()
    if _TRACEBACK in text:
        text = _raised(text)
    text = _CREATING.sub("", _TERRAFORM_SUFFIX.sub("", _TERRAFORM_PREFIX.sub("", text)))
    if _COUNTED.match(text):
        parts = [part.strip() for part in _BULLET.split(text)[1:]]
        text = "\n".join(dict.fromkeys(clean(part) for part in parts if part))
    return text.strip()


def _raised(text: str) -> str:
    """Return what a traceback's exception says, all of its lines.

    The message may hold log lines with tracebacks of their own, so it is found from the top: frames are
    indented, and the first line that is not begins the message.
    """
    lines = text[text.index(_TRACEBACK) :].splitlines()
    message: list[str] = []
    while lines:
        lines.pop(0)
        while lines and (not lines[0].strip() or lines[0].startswith(" ")):
            lines.pop(0)
        message = list(lines)
        chained = next((i for i, line in enumerate(lines) if _CHAINED.match(line)), None)
        if chained is None:
            break
        lines = lines[chained + 1 :]
        while lines and not lines[0].startswith(_TRACEBACK):
            lines.pop(0)
    if not message:
        return text
    raised = _RAISED.match(message[0])
    if raised and (raised[2] in _PLAIN_ERRORS or raised[1].startswith(_OURS)):
        message[0] = message[0][raised.end() :]
    return "\n".join(message).strip()


def is_noise(text: str) -> bool:
    """Whether a cleaned diagnostic holds no information for an operator."""
    return not text or any(pattern.search(text) for pattern in _NOISE)


def describe(urn: str, type_token: str = "") -> str:
    """Return ``kind name``, e.g. ``container api`` for a URN that ends in ``Container::api``."""
    parts = urn.split("::")
    name = parts[-1] if parts else urn
    kind = (type_token or (parts[2].rsplit("$", 1)[-1] if len(parts) > 3 else "")).rsplit(":", 1)[-1]  # noqa: PLR2004  # urn:pulumi:stack::project::types::name
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", kind).lower()
    # Dynamic resources are all of kind `resource`; their names say more.
    return name if kind == "resource" else f"{kind} {name}".strip()


def _worth_a_line(metadata: Mapping[str, Any]) -> bool:
    """Whether a resource is something real: not the stack, a component or a provider."""
    state = metadata.get("new") or metadata.get("old") or {}
    return bool(state.get("custom")) and not str(metadata.get("type", "")).startswith("pulumi:providers:")


@dataclass
class Working:
    """An operation that has begun and not ended."""

    label: str
    verb: str
    since: float
    note: str = ""


@dataclass
class Progress:
    """Follow one Pulumi command through its events.

    ``show`` receives finished lines; ``now`` is the clock. ``planning`` is true for previews, which report
    planned operations instead of finished ones. ``removing`` is true for a run that removes everything: containers that
    `down` stopped before differ from the state, which is no news.
    """

    show: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    planning: bool = False
    removing: bool = False
    heartbeat_after: float = 8.0
    working: dict[str, Working] = field(default_factory=dict)
    errors: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)
    changed: list[tuple[str, str]] = field(default_factory=list)
    drifted: list[str] = field(default_factory=list)
    _partial: str = ""
    _last_line: float | None = None
    _began: float | None = None

    def feed(self, text: str) -> None:
        """Take the next piece of the event log; it may end in the middle of a line."""
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            if line.strip():
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # a line that Pulumi was killed in
                self.take(event)

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one engine event."""
        if "resourcePreEvent" in event:
            self._begin(event["resourcePreEvent"]["metadata"])
        elif "resOutputsEvent" in event:
            self._end(event["resOutputsEvent"]["metadata"])
        elif "resOpFailedEvent" in event:
            metadata = event["resOpFailedEvent"]["metadata"]
            label = describe(metadata["urn"], metadata.get("type", ""))
            self.working.pop(metadata["urn"], None)
            self._line(f"  x {label:<42} failed")
        elif "diagnosticEvent" in event:
            self._diagnose(event["diagnosticEvent"])
        elif "errorEvent" in event:
            self._error("", clean(str(event["errorEvent"].get("error", ""))))
        elif "summaryEvent" in event:
            self.changes = {
                k: int(v) for k, v in (event["summaryEvent"].get("resourceChanges") or {}).items()
            }

    def tick(self) -> None:
        """Report the operations in flight after a while without output."""
        now = self.now()
        if self._began is None:
            self._began = self._last_line = now
        if self._last_line is not None and now - self._last_line >= self.heartbeat_after:
            self._line(f"    {self.under_way()}")

    def under_way(self) -> str:
        """Return one line about the operations in flight, the oldest first."""
        now = self.now()
        if not self.working:
            return f"still working, {now - (self._began or now):.0f} s so far"
        waiting = sorted(self.working.values(), key=lambda entry: entry.since)
        shown = [
            f"{entry.label} ({now - entry.since:.0f} s{', ' + entry.note if entry.note else ''})"
            for entry in waiting[:4]
        ]
        more = f" and {len(waiting) - len(shown)} more" if len(waiting) > len(shown) else ""
        return f"still working: {', '.join(shown)}{more}"

    def _line(self, text: str) -> None:
        self._last_line = self.now()
        self.show(text)

    def _begin(self, metadata: Mapping[str, Any]) -> None:
        urn, operation = str(metadata["urn"]), str(metadata["op"])
        label = describe(urn, str(metadata.get("type", "")))
        if not _worth_a_line(metadata):
            return
        if self.planning and operation != "refresh":
            if operation in _PLANS and operation not in _PLANNED_ONCE:
                sign, verb = _PLANS[operation]
                reasons = ", ".join(sorted(metadata.get("diffs") or metadata.get("detailedDiff") or []))
                self.changed.append((operation, label))
                because = f"  [{reasons}]" if reasons and operation != "create" else ""
                self._line(f"  {sign} {label:<42} {verb}{because}")
            return
        if operation in {"same", "replace"} or metadata.get("logical") is False:
            return
        self.working[urn] = Working(label=label, verb=operation, since=self.now())
        if operation in {"create", "create-replacement", "update"} and label.startswith(tuple(_SLOW)):
            self._line(f"    {label}: building or pulling")

    def _end(self, metadata: Mapping[str, Any]) -> None:
        urn, operation = str(metadata["urn"]), str(metadata["op"])
        begun = self.working.pop(urn, None)
        if not _worth_a_line(metadata):
            return
        label = describe(urn, str(metadata.get("type", "")))
        if operation == "refresh":
            self._drift(label, metadata)
            return
        if self.planning or operation not in _VERBS:
            return
        sign, verb = _VERBS[operation]
        if operation == "delete" and (metadata.get("old") or {}).get("retainOnDelete"):
            verb = "kept (no longer managed)"
        elapsed = f"  {self.now() - begun.since:.1f} s" if begun else ""
        self.changed.append((operation, label))
        self._line(f"  {sign} {label:<42} {verb}{elapsed}")

    def _drift(self, label: str, metadata: Mapping[str, Any]) -> None:
        if metadata.get("new"):
            differences = ", ".join(sorted(metadata.get("diffs") or metadata.get("detailedDiff") or []))
            if not differences:
                return
            what = f"differs from the state [{differences}]"
        else:
            what = "is gone"
        self.drifted.append(label)
        if not self.removing:
            self._line(f"    drift: {label} {what}")

    def _diagnose(self, event: Mapping[str, Any]) -> None:
        urn = str(event.get("urn", ""))
        text = clean(str(event.get("message", "")))
        severity = str(event.get("severity", "info"))
        if is_noise(text):
            return
        if severity == "error":
            self._error(urn, text)
        elif severity == "warning":
            if text not in self.warnings:
                self.warnings.append(text)
                self._line(f"  ! {text}")
        elif severity.startswith("info"):
            if event.get("ephemeral"):
                if urn in self.working:
                    self.working[urn].note = text.splitlines()[0]
                return
            self._line("\n".join(f"    {line.removeprefix('info: ')}" for line in text.splitlines()))

    def _error(self, urn: str, text: str) -> None:
        if is_noise(text):
            return
        label = describe(urn) if urn else ""
        if label.startswith("stack "):
            label = ""
        for index, (owner, known) in enumerate(self.errors):
            if text in known:
                return
            if known in text and owner in {"", label}:
                self.errors[index] = (label, text)
                return
        self.errors.append((label, text))
