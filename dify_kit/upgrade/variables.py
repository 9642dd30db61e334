"""What becomes of `dify:extraEnv` when a stack gets another release: renamed variables, and those that are gone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.catalogue import selection, variables
from infra.catalogue.names import service_name
from infra.catalogue.releases import Release

_STAND_IN = "DIFY_STANDIN_"


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A variable that the new release calls otherwise, or does not read: then `renamed` is empty.

    `service` is spelled as in the settings. `value` is the new release's, `kept` says that another one is set already.
    """

    service: str
    name: str
    renamed: str = ""
    value: str = ""
    kept: bool = False

    def text(self, release: str) -> str:
        """Say what happens with it. No value is in it: it may be a secret."""
        where = f"extraEnv.{self.service}.{self.name}"
        if not self.renamed:
            return f"{where} is removed: Dify {release} reads none of that name"
        if self.kept:
            return f"{where} is removed: Dify {release} calls it {self.renamed}, which is set already"
        return f"{where} becomes {self.renamed}, as Dify {release} calls it"


def moved(extra: Mapping[str, Any], old: Release, new: Release) -> Iterator[Moved]:
    """Yield what a new release takes otherwise of the variables that a stack sets by itself."""
    for service, given in extra.items():
        if not isinstance(given, dict):
            continue
        known = new.variables(service_name(service))
        complete = service_name(service) not in selection.partly_known()
        for name, value in given.items():
            text = str(value)
            other, translated = _named(name, text, old, new)
            if other != name:
                yield Moved(service=service, name=name, renamed=other, value=translated, kept=other in given)
            elif (
                known
                and name not in known
                and not name.startswith(_STAND_IN)
                and name in variables.problems(known, {name: text}, complete=complete)
            ):
                yield Moved(service=service, name=name)


def _named(name: str, value: str, old: Release, new: Release) -> tuple[str, str]:
    """Return name and value of a variable in the new release."""
    ours = next((key for key, one in old.renamed.items() if one.name == name), name)
    if ours in old.renamed:
        value = {text: key for key, text in old.renamed[ours].values.items()}.get(value, value)
    if ours in new.renamed:
        return new.renamed[ours].name, new.renamed[ours].values.get(value, value)
    return ours, value
