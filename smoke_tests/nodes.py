"""The canary app whose nodes run in other services: the result of a node, and whether squid refused its request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smoke_tests.chat import USER
from smoke_tests.client import SHOWN, Client, VisitError
from smoke_tests.masking import Secret
from smoke_tests.oauth import bearer

OK, FORBIDDEN = 200, 403
# Dify's message when the headers of a refusal identify squid.
BLOCKED = "blocked by SSRF protection"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A finished run. `error` is Dify's message of a failed run."""

    status: str
    error: str
    outputs: Mapping[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        """The headers that an HTTP node received, names in lower case."""
        found = self.outputs.get("headers") or {}
        return {str(name).lower(): str(value) for name, value in found.items()}

    @property
    def refused_by_squid(self) -> bool:
        """Whether squid refused the request of an HTTP node, rather than the address or a missing squid."""
        by_squid = "x-squid-error" in self.headers or "squid" in self.headers.get("server", "").lower()
        return BLOCKED in self.error or (self.outputs.get("status_code") == FORBIDDEN and by_squid)

    @property
    def account(self) -> str:
        """Status, outputs and error of the run, in a line."""
        if self.error:
            return f"the run is {self.status}: {self.error[:SHOWN]}"
        if "status_code" not in self.outputs:
            return f"the run is {self.status}, with {dict(self.outputs)!r}"
        return (
            f"status {self.outputs['status_code']} with the headers {sorted(self.headers)} and the body "
            f"{str(self.outputs.get('body'))[:SHOWN]!r}"
        )


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The app behind its key."""

    client: Client = field(repr=False)
    url: str
    key: Secret

    def run(self, probe: str, *, text: str = "") -> Ran:
        """Run the node that `probe` names. Raises VisitError without an answer that describes a run."""
        answer = self.client.ask(
            "POST",
            f"{self.url}/v1/workflows/run",
            headers=bearer(self.key),
            body={"inputs": {"probe": probe, "text": text}, "response_mode": "blocking", "user": USER},
        )
        if answer.status != OK:
            raise VisitError(f"the node {probe} did not run: {answer!r}")
        data = answer.json()["data"]
        return Ran(
            status=str(data.get("status")),
            error=str(data.get("error") or ""),
            outputs=data.get("outputs") or {},
        )
