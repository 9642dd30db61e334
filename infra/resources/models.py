"""Plugins, credentials of models and default models of Dify's workspace as Pulumi resources."""

from collections.abc import Mapping
from typing import Unpack

import pulumi
from pulumi import dynamic

from infra.resources.console import Access
from infra.resources.model_resource_providers import (
    NO_DRIFT,
    CredentialProvider,
    DefaultModelsProvider,
    PluginProvider,
)


class Plugin(dynamic.Resource):
    """A plugin, `author/name`.

    `pinned` is author/name:version@sha256, or empty for the newest at the first installation. `file` is a package on
    this machine, and `by_file` the command that names one. `keep`: removing this resource leaves the plugin in Dify.
    Output: `installed`, the identifier in use.
    """

    installed: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        plugin: str,
        pinned: str = "",
        file: str = "",
        by_file: str = "",
        keep: bool = True,
        opts: pulumi.ResourceOptions | None = None,
        **access: Unpack[Access],
    ) -> None:
        props = {
            **access,
            "plugin": plugin,
            "pinned": pinned,
            "file": file,
            "by_file": by_file,
            "keep": keep,
            "installed": None,
        }
        super().__init__(PluginProvider(), name, props, opts)


class Model(dynamic.Resource):
    """A model with its credential; without `model` and `model_type`, the credential of a whole provider.

    `fields` and `secrets` are the credential's values, all of them texts; `secrets` should be a secret output.
    """

    def __init__(
        self,
        name: str,
        *,
        provider: str,
        model: str,
        model_type: str,
        credential_name: str,
        fields: Mapping[str, str],
        secrets: pulumi.Input[Mapping[str, str]],
        opts: pulumi.ResourceOptions | None = None,
        **access: Unpack[Access],
    ) -> None:
        props = {
            **access,
            "provider": provider,
            "model": model,
            "model_type": model_type,
            "credential_name": credential_name,
            "fields": dict(fields),
            "secrets": secrets,
            "drift": NO_DRIFT,
            "credential_id": None,
        }
        secret = pulumi.ResourceOptions(additional_secret_outputs=["secrets"])
        super().__init__(CredentialProvider(), name, props, pulumi.ResourceOptions.merge(opts, secret))


class DefaultModels(dynamic.Resource):
    """The default models of the workspace: by type, `provider` and `model`."""

    def __init__(
        self,
        name: str,
        *,
        models: Mapping[str, Mapping[str, str]],
        opts: pulumi.ResourceOptions | None = None,
        **access: Unpack[Access],
    ) -> None:
        props = {**access, "models": {kind: dict(one) for kind, one in models.items()}}
        super().__init__(DefaultModelsProvider(), name, props, opts)
