"""Dify's admin, apps and API keys as Pulumi resources."""

import hashlib
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

import pulumi
import yaml
from pulumi import dynamic

from infra.catalogue.yaml_reader import read_yaml
from infra.resources.console_providers import (
    AdminProvider,
    AppKeyProvider,
    AppProvider,
    DatasetKeyProvider,
    KeyProvider,
    marker,
)

# Dify's console does not save a longer description.
MOST_DESCRIPTION = 400


class Access(TypedDict):
    """How a resource reaches Dify's console: the api's container, the console's public origin, and the admin's account.

    `password` should be a secret output.
    """

    container: pulumi.Input[str]
    console_url: pulumi.Input[str]
    email: pulumi.Input[str]
    password: pulumi.Input[str]


class Admin(dynamic.Resource):
    """The account that owns the instance.

    Inputs: those of `Access`, admin_name, and init_password (INIT_PASSWORD of the api, a secret output).
    """

    def __init__(
        self,
        name: str,
        *,
        admin_name: pulumi.Input[str],
        init_password: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
        **access: Unpack[Access],
    ) -> None:
        props = {**access, "admin_name": admin_name, "init_password": init_password}
        super().__init__(AdminProvider(), name, props, opts)


class App(dynamic.Resource):
    """An app, from the text of its DSL.

    `app_name` is the kit's name for it; its title in Dify may differ. `keep`: removing this resource leaves the
    app in Dify. Outputs: `app_id`, and `mode` as Dify names it. Raises pulumi.RunError for a malformed DSL.
    """

    mode: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        app_name: str,
        dsl: str,
        keep: bool = True,
        opts: pulumi.ResourceOptions | None = None,
        **access: Unpack[Access],
    ) -> None:
        marked, mode = mark(dsl, app_name)
        props = {
            **access,
            "app_name": app_name,
            "dsl": marked,
            "digest": hashlib.sha256(marked.encode()).hexdigest(),
            "mode": mode,
            "keep": keep,
        }
        super().__init__(AppProvider(), name, props, opts)

    @property
    def app_id(self) -> pulumi.Output[str]:
        """The app's id in Dify, which a preview of a changed DSL has, too."""
        return self.id


class Key(dynamic.Resource):
    """An API key of Dify. A key of an interrupted run is found by the resource's name. Output: `key`, a secret."""

    key: pulumi.Output[str]

    def __init__(
        self,
        provider: KeyProvider,
        name: str,
        props: Mapping[str, Any],
        opts: pulumi.ResourceOptions | None,
    ) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["key"])
        super().__init__(
            provider,
            name,
            {**props, "owner": name, "key": None},
            pulumi.ResourceOptions.merge(opts, secret),
        )


class AppKey(Key):
    """An API key of an app."""

    def __init__(
        self,
        name: str,
        *,
        app_id: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
        **access: Unpack[Access],
    ) -> None:
        super().__init__(AppKeyProvider(), name, {**access, "app_id": app_id}, opts)


class DatasetKey(Key):
    """A key of the knowledge API, which opens every knowledge base of the workspace."""

    def __init__(
        self, name: str, *, opts: pulumi.ResourceOptions | None = None, **access: Unpack[Access]
    ) -> None:
        super().__init__(DatasetKeyProvider(), name, dict(access), opts)


def mark(dsl: str, app_name: str) -> tuple[str, str]:
    """Return the DSL with a description by which the app is found again, and the app's mode.

    Raises pulumi.RunError when the text is no DSL of an app.
    """
    try:
        document = read_yaml(dsl)
    except yaml.YAMLError as problem:
        raise pulumi.RunError(f"app {app_name}: its DSL is no YAML: {problem}") from None
    app = document.get("app") if isinstance(document, dict) else None
    if not isinstance(app, dict) or not app.get("mode") or not app.get("name"):
        raise pulumi.RunError(
            f"app {app_name}: its DSL has no app.mode or no app.name; export it from Dify's console"
        )
    end = marker(app_name)
    described = str(app.get("description") or "").strip()[: MOST_DESCRIPTION - len(end) - 1]
    app["description"] = f"{described} {end}".strip()
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False), str(app["mode"])
