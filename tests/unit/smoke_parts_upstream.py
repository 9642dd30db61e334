"""The small Dify with nodes, squid, a worker and a plugin daemon behind it."""

import uuid
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.unit.smoke_upstream import Handler, Refused

NODES_KEY = "app-UnitTestNodes7rT4wYx1"
DATASET_KEY = "dataset-UnitTestKnow2hG6jK3"
SQUID = {"server": "squid/6.13", "x-squid-error": "ERR_ACCESS_DENIED 0", "content-type": "text/html"}
API = {"content-type": "application/json", "x-version": "1.17.1"}
# The error of an HTTP node without a proxy.
GONE = "Reached maximum retries (0) for URL http://api:5001/"
BLOCKED = "Access to 'http://api:5001/health' was blocked by SSRF protection. The URL may point to a private address."


class PartsHandler(Handler):
    """One request to an environment with everything behind it. Knowledge bases live in `upstream.conversations`."""

    texts: ClassVar[dict[str, str]] = {}

    def route(self, body: dict[str, Any]) -> None:
        path = urlsplit(self.path).path
        if path == "/v1/workflows/run":
            self.with_this(NODES_KEY)
            self.run(body["inputs"])
        elif path.startswith("/v1/datasets") and self.headers.get("Authorization") == f"Bearer {DATASET_KEY}":
            self.knowledge(path.removeprefix("/v1/datasets"), body)
        elif path.startswith("/e/") and self.wrong("daemon-without-database"):
            self.send(500, {"code": -500, "message": "internal server error", "data": None})
        elif path.startswith("/e/") and self.wrong("daemon-dead"):
            self.send(502, {"code": "bad_gateway", "message": "The service is away.", "status": 502})
        elif path.startswith("/e/") and self.wrong("no-plugin-route"):
            self.send(404, "<html>404 page not found</html>")
        else:
            super().route(body)

    def with_this(self, key: str) -> None:
        if self.headers.get("Authorization") != f"Bearer {key}":
            self.unauthorized("Access token is invalid")

    def run(self, inputs: dict[str, str]) -> None:
        outputs, error = getattr(self, f"node_{inputs['probe']}")(inputs["text"])
        data = {"status": "failed" if error else "succeeded", "error": error, "outputs": outputs}
        self.send(200, {"workflow_run_id": str(uuid.uuid4()), "data": data})

    def node_code(self, text: str) -> tuple[dict[str, Any], str | None]:
        if self.wrong("sandbox-dead"):
            return {}, "Failed to execute code, which is likely a network issue"
        if self.wrong("sandbox-refuses"):
            return {}, "error: operation not permitted"
        answer = f"{text[::-1]} {sum(map(ord, text))}"
        return {"answer": "42" if self.wrong("sandbox-makes-up") else answer}, None

    def node_allowed(self, _text: str) -> tuple[dict[str, Any], str | None]:
        if self.wrong("squid-dead"):
            return {}, GONE
        if self.wrong("squid-closed"):
            return self.squid()
        if self.wrong("squid-without-dns"):
            return {
                "status_code": 503,
                "headers": SQUID | {"x-squid-error": "ERR_DNS_FAIL 0"},
                "body": "",
            }, None
        return {"status_code": 404, "headers": API, "body": "{}"}, None

    def node_private(self, _text: str) -> tuple[dict[str, Any], str | None]:
        if self.wrong("squid-dead"):
            return {}, GONE
        if self.wrong("squid-open"):
            return {"status_code": 200, "headers": API, "body": '{"status": "ok"}'}, None
        if self.wrong("squid-open-to-a-403"):
            return {"status_code": 403, "headers": API, "body": "{}"}, None
        return self.squid()

    def node_metadata(self, _text: str) -> tuple[dict[str, Any], str | None]:
        if self.wrong("squid-open") or self.wrong("squid-dead"):
            return {}, GONE
        return self.squid()

    def squid(self) -> tuple[dict[str, Any], str | None]:
        if self.wrong("older-dify"):
            return {"status_code": 403, "headers": SQUID, "body": "<html>"}, None
        return {}, BLOCKED

    def knowledge(self, path: str, body: dict[str, Any]) -> None:
        if path == "" and self.command == "GET":
            self.send(200, {"data": [], "has_more": False})
        elif path == "":
            made = str(uuid.uuid4())
            self.upstream.conversations[made] = []
            self.send(200, {"id": made, "name": body["name"]})
        elif self.command == "DELETE":
            self.upstream.conversations.pop(path.strip("/"), None)
            self.send(204, "")
        elif path.endswith("/create-by-text"):
            self.texts[path.split("/")[1]] = body["text"]
            self.send(200, {"document": {"id": str(uuid.uuid4())}, "batch": "20260101"})
        elif path.endswith("/indexing-status"):
            status = "completed"
            if self.wrong("worker-dead"):
                status = "waiting"
            if self.wrong("worker-fails"):
                status = "error"
            self.send(200, {"data": [{"indexing_status": status, "error": "no space left"}]})
        else:
            text = "something else" if self.wrong("finds-another") else self.texts[path.split("/")[1]]
            records = [] if self.wrong("finds-nothing") else [{"segment": {"content": text}, "score": 0.0}]
            if self.wrong("retrieval-fails"):
                raise Refused(500, {"code": "unknown", "message": "Internal Server Error", "status": 500})
            self.send(200, {"query": {"content": body["query"]}, "records": records})
