"""Talking to the knowledge API as its users do, and leaving nothing behind."""

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
# Knowledge bases of a run that was killed are removed by a later one, those of a run beside this one are not.
LEFT_BEHIND_SECONDS = 3600
OK, REDIRECTED = 200, 300
REMOVED = (200, 204)
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 1.0, 5.0
# No model is needed for it: a document is found by its keywords.
TECHNIQUE, SEARCH = "economy", "keyword_search"
DONE, FAILED = "completed", {"error", "paused"}


@dataclass(kw_only=True)
class Knowledge:
    """The knowledge API behind a key; remembers what it made. `seconds` bounds the indexing of a document."""

    client: Client = field(repr=False)
    url: str
    key: Secret
    seconds: float
    made: list[str] = field(default_factory=list)

    def create(self) -> str:
        """Make a knowledge base with a name that no other has; return its id."""
        body = {
            "name": PREFIX + secrets.token_hex(8),
            "description": "Made and deleted by the smoke tests of dify-kit",
            "indexing_technique": TECHNIQUE,
            "permission": "only_me",
        }
        made = str(self._good("POST", "", body).json()["id"])
        self.made.append(made)
        return made

    def add(self, dataset: str, text: str) -> str:
        """Add a document; return the batch by which its state is asked for."""
        body = {
            "name": "smoke test",
            "text": text,
            "indexing_technique": TECHNIQUE,
            "process_rule": {"mode": "automatic"},
        }
        return str(self._good("POST", f"/{dataset}/document/create-by-text", body).json()["batch"])

    def wait(self, dataset: str, batch: str) -> None:
        """Wait until a document is indexed. Raises AssertionError that says what was last seen of it."""

        def look() -> dict[str, Any]:
            listed = self._good("GET", f"/{dataset}/documents/{batch}/indexing-status").json()["data"]
            return dict(listed[0]) if listed else {"indexing_status": "not listed"}

        seen: dict[str, Any] = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda one: one["indexing_status"] not in {DONE, *FAILED}),
            # Few looks: the edge may limit a key to a handful of requests a minute.
            wait=tenacity.wait_exponential(multiplier=FIRST_LOOK_SECONDS, max=LAST_LOOK_SECONDS),
            stop=tenacity.stop_after_delay(self.seconds),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )(look)
        status = seen["indexing_status"]
        if status == DONE:
            return
        if status in FAILED:
            raise AssertionError(f"worker: it gave the document up: {status}: {seen.get('error')}")
        raise AssertionError(
            f"worker: the document is not indexed after {self.seconds:.0f} s (--indexing); its last state is "
            f"{status!r}. `waiting` means that no worker took the task"
        )

    def find(self, dataset: str, query: str) -> list[str]:
        """Return the texts that a knowledge base finds for a query."""
        model = {
            "search_method": SEARCH,
            "reranking_enable": False,
            "top_k": 3,
            "score_threshold_enabled": False,
        }
        told = self._good("POST", f"/{dataset}/retrieve", {"query": query, "retrieval_model": model}).json()
        return [str(record["segment"]["content"]) for record in told["records"]]

    def delete_made(self) -> list[str]:
        """Delete every knowledge base that was made here; return what could not be deleted."""
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
        """Take over what an earlier run, killed in the middle, left more than an hour ago."""
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
            raise VisitError(f"the knowledge API refuses: {answer!r}")
        return answer

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        return self.client.ask(method, f"{self.url}/v1/datasets{path}", headers=bearer(self.key), body=body)


@contextmanager
def tidied(knowledge: Knowledge) -> Iterator[Knowledge]:
    """Give the knowledge API to a test and delete what it made afterwards, however the test went."""
    try:
        knowledge.adopt_left_behind()
        yield knowledge
    finally:
        failed = knowledge.delete_made()
        if failed:
            raise AssertionError(f"knowledge bases of the smoke tests are still there: {failed}")
