"""An OAuth client that the program makes for itself: the one of the smoke tests. All others are data."""

from typing import Any

import pulumi
from pulumi import dynamic


class OAuthClientProvider(dynamic.ResourceProvider):
    """Pickled by reference: this module must keep its name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Make the secret, and the hash that the gateway keeps of it."""
        from dify_gateway import client_secrets  # noqa: PLC0415  # kept out of the pickled provider

        secret = client_secrets.generate_secret()
        return dynamic.CreateResult(
            props["client_id"], {**props, "secret": secret, "hash": client_secrets.hash_secret(secret)}
        )

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Another id is another client."""
        changed = _olds.get("client_id") != _news.get("client_id")
        return dynamic.DiffResult(changes=changed, replaces=["client_id"] if changed else [])


class OAuthClient(dynamic.Resource):
    """A client's id, its `secret` (a Pulumi secret) and the `hash` that the gateway compares with.

    Replacing it (`pulumi state taint`) makes a new secret.
    """

    client_id: pulumi.Output[str]
    secret: pulumi.Output[str]
    hash: pulumi.Output[str]

    def __init__(self, name: str, *, client_id: str, opts: pulumi.ResourceOptions | None = None) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["secret"])
        super().__init__(
            OAuthClientProvider(),
            name,
            {"client_id": client_id, "secret": None, "hash": None},
            pulumi.ResourceOptions.merge(opts, secret),
        )
