"""The models tier: plugins, models with their credentials and default models of Dify's workspace."""

import json
from typing import Any

import pulumi

from infra import hints
from infra.catalogue.services import NGINX
from infra.platforms.platform import Running
from infra.resources.models import DefaultModels, Model, Plugin
from infra.settings.model_providers import Credential
from infra.settings.stack import Settings
from infra.tiers.apps import AppsTier
from infra.tiers.edge import EdgeTier

# Where messages name the file of a package, which the operator puts somewhere.
PACKAGE = "/path/to/package.difypkg"


class ModelsTier(pulumi.ComponentResource):
    """Gives Dify its models. It is the last tier: Dify checks a credential by a call through the edge.

    `facts` lists plugins, models and default models, without credentials; None where there are none.
    """

    def __init__(
        self, name: str, settings: Settings, apps: AppsTier, edge: EdgeTier, *, daemon: Running
    ) -> None:
        super().__init__("dify-kit:tiers:Models", name)
        wanted = settings.model_providers
        self._access = apps.console()
        # nginx with its live configuration, in which Dify is a caller. Waiting for the tier would be for the container.
        self._edge = edge.running[NGINX].ready
        plugins = {
            one.plugin: Plugin(
                f"plugin-{one.plugin}",
                **self._access,
                plugin=one.plugin,
                pinned=one.pinned,
                file=str(one.file or ""),
                by_file=hints.assign(one.file_setting, PACKAGE, stack=settings.stack),
                keep=one.keep,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[apps.admin, daemon.ready]),
            )
            for one in wanted.plugins
        }
        models = [self._model(one, plugins) for one in wanted.credentials]
        if wanted.defaults:
            DefaultModels(
                "default-models",
                **self._access,
                models={
                    kind: {"provider": one.provider, "model": one.model}
                    for kind, one in wanted.defaults.items()
                },
                opts=pulumi.ResourceOptions(parent=self, depends_on=[apps.admin, *plugins.values(), *models]),
            )
        self.facts: dict[str, Any] | None = None
        if plugins or models or wanted.defaults:
            self.facts = {
                "plugins": {name: plugin.installed for name, plugin in plugins.items()},
                "models": [
                    {"provider": one.provider, "model": one.model, "type": one.type}
                    for one in wanted.credentials
                ],
                "defaults": {kind: one.model for kind, one in wanted.defaults.items()},
            }
        self.register_outputs({})

    def _model(self, one: Credential, plugins: dict[str, Plugin]) -> Model:
        own = plugins.get(one.plugin)
        return Model(
            "-".join(part for part in ("model", one.provider, one.type, one.model) if part),
            **self._access,
            provider=one.provider,
            model=one.model,
            model_type=one.type,
            credential_name=one.name,
            fields=one.fields,
            secrets=one.secrets.apply(json.loads),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self._edge, *([own] if own else [])]),
        )
