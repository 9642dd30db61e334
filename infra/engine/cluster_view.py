"""What the guards and `dify-kit scale` read of a cluster besides its workloads: any path of its API, and dry runs."""

import json
from collections.abc import Mapping
from typing import Any

from infra.engine.cluster import BAD_REQUEST, NOT_FOUND, TIMEOUT_SECONDS, UNAUTHORIZED, Cluster

FORBIDDEN, SERVER_ERROR, UNAVAILABLE = 403, 500, 503
JSON = "application/json"


class ClusterView(Cluster):
    """A cluster with its facts. Each method raises ClusterError when it does not answer."""

    def look(self, path: str) -> Mapping[str, Any] | None:
        """Return the document at a path of the API; None where there is none, or the user may not read it.

        Rights in one namespace do not include nodes and storage classes: what is not readable is not checked.
        """
        status, document = self._request("GET", path)
        return None if status >= BAD_REQUEST else document

    def refused(self, path: str, manifest: Mapping[str, Any]) -> str:
        """Return why the cluster would not take a new object, by a dry run; empty where it would.

        Also empty where the user may not create one there: that is a question of rights, which `allowed` answers.
        """
        status, document = self._request("POST", f"{path}?dryRun=All", manifest)
        if status < BAD_REQUEST or status in {FORBIDDEN, NOT_FOUND}:
            return ""
        return str(document.get("message") or f"status {status}")

    def secret_type(self, namespace: str, name: str) -> str | None:
        """Return the type of a Secret; None when there is none of that name."""
        found = self._one(f"Secret {name}", self.core.read_namespaced_secret, name, namespace)
        return None if found is None else str(found.get("type") or "Opaque")

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return status and document of a request. Raises ClusterError where no API answers, or not to this user."""
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

        client = self.core.api_client
        headers = {"Accept": JSON, **({"Content-Type": JSON} if body is not None else {})}
        with self.asking(f"{method} {path.partition('?')[0]}"):
            answer = client.call_api(
                *client.param_serialize(
                    method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
                ),
                _request_timeout=TIMEOUT_SECONDS,
            )
            text = answer.read()
            if answer.status == UNAUTHORIZED or (
                answer.status >= SERVER_ERROR and answer.status != UNAVAILABLE
            ):
                raise ApiException(status=answer.status, reason=answer.reason)
        try:
            document = json.loads(text)
        except ValueError:
            document = {}
        return answer.status, document if isinstance(document, dict) else {}
