"""Authentication of the service API: Dify judges, and the edge passes its words on."""

import httpx
import pytest

from smoke_tests.target import BearerKey, Secret, Target

PATH = "/v1/info"
MISSING = "Authorization header must be provided and start with 'Bearer'"
WRONG_SCHEME = "Authorization scheme must be 'Bearer'"
INVALID = "Access token is invalid"


def refused_with(response: httpx.Response, message: str) -> None:
    """Demand Dify's 401: its body, and the challenge that names its realm."""
    assert response.status_code == httpx.codes.UNAUTHORIZED
    assert response.json() == {"code": "unauthorized", "message": message, "status": 401}
    assert response.headers.get_list("www-authenticate") == ['Bearer realm="api"']


def test_key_is_accepted(caller: httpx.Client) -> None:
    response = caller.get(PATH)

    assert response.status_code == httpx.codes.OK
    assert response.json()["mode"] in {"advanced-chat", "chat", "agent-chat"}


def test_missing_key_is_refused(anonymous: httpx.Client) -> None:
    refused_with(anonymous.get(PATH), MISSING)


def test_wrong_scheme_is_refused(anonymous: httpx.Client, target: Target) -> None:
    refused_with(anonymous.get(PATH, auth=BearerKey(target.key, scheme="Basic")), WRONG_SCHEME)


def test_key_without_scheme_is_refused(anonymous: httpx.Client) -> None:
    refused_with(anonymous.get(PATH, headers={"Authorization": "app-something"}), MISSING)


@pytest.mark.parametrize("key", ["app-wrongwrongwrongwrongwrong", "dataset-wrongwrongwrong", "junk"])
def test_wrong_key_is_refused(anonymous: httpx.Client, key: str) -> None:
    refused_with(anonymous.get(PATH, auth=BearerKey(Secret(key))), INVALID)


def test_app_key_does_not_open_datasets(caller: httpx.Client) -> None:
    refused_with(caller.get("/v1/datasets"), INVALID)


def test_message_without_user_is_refused_by_dify(caller: httpx.Client) -> None:
    response = caller.post("/v1/chat-messages", json={"inputs": {}, "query": "hello"})

    assert response.status_code == httpx.codes.BAD_REQUEST
    assert response.json()["code"] == "invalid_param"
