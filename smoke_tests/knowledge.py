"""Uses the knowledge API as its clients do and deletes what it creates."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import tenacity

from smoke_tests.client import Answer, Client, VisitError
from smoke_tests.masking import Secret
from smoke_tests.oauth import bearer

PREFIX = "dify-kit smoke test "
# A later run removes the knowledge bases of a killed run, but not those of a concurrent run.
LEFT_BEHIND_SECONDS = 3600
OK, REDIRECTED = 200, 300
REMOVED = (200, 204)
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 1.0, 5.0
# Keyword search needs no model.
TECHNIQUE, SEARCH = "economy", "keyword_search"
DONE, FAILED = "completed", {"error", "paused"}


@dataclass(kw_only=True)
class Knowledge:
    """The knowledge API behind a key; records what it creates. `seconds` bounds the indexing of a document."""

    client: Client = field(repr=False)
    url: str
    key: Secret
    seconds: float
    made: list[str] = field(default_factory=list)

    def create(self) -> str:
        """Create a knowledge base with a unique name; return its id."""
        body = {
            "name": PREFIX + secrets.token_hex(8),
            "description": "Created and deleted by the smoke tests of dify-kit",
            "indexing_technique": TECHNIQUE,
            "permission": "only_me",
        }
        made = str(self._good("POST", "", body).json()["id"])
        self.made.append(made)
        return made

    def add(self, dataset: str, text: str) -> str:
        """Add a document; return the batch that identifies its indexing."""
        body = {
            "name": "smoke test",
            "text": text,
            "indexing_technique": TECHNIQUE,
            "process_rule": {"mode": "automatic"},
        }
        return str(self._good("POST", f"/{dataset}/document/create-by-text", body).json()["batch"])

    def wait(self, dataset: str, batch: str) -> None:
        """Wait until a document is indexed. Raises AssertionError with its last state."""

        def look() -> dict[str, Any]:
            listed = self._good("GET", f"/{dataset}/documents/{batch}/indexing-status").json()["data"]
            return dict(listed[0]) if listed else {"indexing_status": "not listed"}

        seen: dict[str, Any] = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda one: one["indexing_status"] not in {DONE, *FAILED}),
            # Few polls: the edge may limit a key to a handful of requests a minute.
            wait=tenacity.wait_exponential(multiplier=FIRST_LOOK_SECONDS, max=LAST_LOOK_SECONDS),
            stop=tenacity.stop_after_delay(self.seconds),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )(look)
        status = seen["indexing_status"]
        if status == DONE:
            return
        if status in FAILED:
            raise AssertionError(f"worker: indexing ended with {status}: {seen.get('error')}")
        raise AssertionError(
            f"worker: the document is not indexed after {self.seconds:.0f} s (--indexing); its last state is "
            f"{status!r}. `waiting` means that no worker took the task: check the worker's log"
        )

    def find(self, dataset: str, query: str) -> list[str]:
        """Return the texts that a knowledge base finds for a query."""
        model = {
            "search_method": SEARCH,
            "reranking_enable": False,
            "top_k": 3,
            "score_threshold_enabled": False,
        }
        found = self._good("POST", f"/{dataset}/retrieve", {"query": query, "retrieval_model": model}).json()
        return [str(record["segment"]["content"]) for record in found["records"]]

    def delete_made(self) -> list[str]:
        """Delete every recorded knowledge base; return those that could not be deleted."""
        failed = []
        for dataset in self.made:
            try:
                answer = self._ask("DELETE", f"/{dataset}")
            except VisitError as problem:
                failed.append(f"{dataset}: {problem}")
            else:
                if answer.status not in {*REMOVED, 404}:
                    failed.append(f"{dataset}: {answer!r}")
        self.made.clear()
        return failed

    def adopt_left_behind(self) -> None:
        """Record knowledge bases older than an hour that a killed run left behind, so that they are deleted."""
        listed = self._good("GET", f"?limit=100&keyword={PREFIX.strip().replace(' ', '%20')}").json()["data"]
        old = time.time() - LEFT_BEHIND_SECONDS
        self.made += [
            str(one["id"])
            for one in listed
            if str(one["name"]).startswith(PREFIX) and one.get("created_at", old) < old
        ]

    def _good(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        answer = self._ask(method, path, body)
        if not OK <= answer.status < REDIRECTED:
            raise VisitError(f"the knowledge API refuses the request: {answer!r}")
        return answer

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        return self.client.ask(method, f"{self.url}/v1/datasets{path}", headers=bearer(self.key), body=body)


@contextmanager
def tidied(knowledge: Knowledge) -> Iterator[Knowledge]:
    """Give the knowledge API to a test and delete what it created, also when the test fails."""
    try:
        knowledge.adopt_left_behind()
        yield knowledge
    finally:
        failed = knowledge.delete_made()
        if failed:
            raise AssertionError(f"knowledge bases of the smoke tests are still there: {failed}")
