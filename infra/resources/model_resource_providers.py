"""What Pulumi does with plugins, credentials of models and default models of Dify's workspace.

The providers are pickled by reference: this module must keep its name as long as stacks exist. The life of each of
them: docs/guides/models.md.
"""

from typing import Any

import pulumi
from pulumi import dynamic

from infra.resources.console_client import Console, NotFoundError
from infra.resources.console_providers import (
    ACCESS,
    compared,
    delete_or_tell,
    hasty_console,
    observed,
    patient_console,
)
from infra.resources.model_client import ACTIVE, Credential, Models, Place, different
from infra.resources.plugin_client import Plugins

# What the credential of a model has when it is as the settings say.
NO_DRIFT = ""
# Dify answers when the upstream has answered, or was not reached.
SAVE_SECONDS = 150


class PluginProvider(dynamic.ResourceProvider):
    """A plugin. Its id is author/name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Install the plugin; an installed one is used, in the pinned version when there is one."""
        return dynamic.CreateResult(props["plugin"], self._ensured(props))

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the plugin gone when it is not installed, and which version is."""

        def look() -> dict[str, Any]:
            found = Plugins(console=hasty_console(props)).find(id_)
            if found is None:
                raise NotFoundError(f"plugin {id_}")
            return {**props, "installed": found.identifier}

        return observed(f"plugin {id_}", id_, props, look)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Replace the version in place where another one is pinned; credentials and defaults stay."""
        moved = _news["pinned"] not in {"", _olds.get("installed")}
        found = compared(
            _olds, _news, updates=ACCESS | {"pinned", "file", "keep"}, replaces=frozenset({"plugin"})
        )
        return dynamic.DiffResult(
            changes=found.changes or moved, replaces=found.replaces, delete_before_replace=True
        )

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.UpdateResult:
        """Install the pinned version, unless it is installed."""
        return dynamic.UpdateResult(self._ensured(_news))

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Keep the plugin unless `keep` is false: a later `up` finds it, and needs no download."""
        if props.get("keep", True):
            pulumi.log.info(f"plugin {id_} stays in Dify, if the volumes stay")
            return
        delete_or_tell(f"plugin {id_}", lambda: Plugins(console=hasty_console(props)).uninstall(id_))

    @staticmethod
    def _ensured(props: dict[str, Any]) -> dict[str, Any]:
        plugins = Plugins(console=patient_console(props), by_file=props["by_file"])
        found = plugins.ensure(props["plugin"], props["pinned"], props["file"])
        return {**props, "installed": found.identifier}


class CredentialProvider(dynamic.ResourceProvider):
    """The credential of a model, or of a whole provider, with the model in use."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Store the credential and use it; one of that name from an earlier run is used again."""
        key = Models(console=_saving_console(props)).save(_place(props), _credential(props))
        return dynamic.CreateResult(_id_of(props), {**props, "credential_id": key, "drift": NO_DRIFT})

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the credential gone when Dify has none of its name, and what differs from the settings."""

        def look() -> dict[str, Any]:
            stored = Models(console=hasty_console(props)).look(_place(props), props["credential_name"])
            if not stored.id:
                raise NotFoundError(id_)
            fields = different(stored.values, _credential(props))
            drift = NO_DRIFT if stored.state == ACTIVE else stored.state
            if fields:
                drift = f"changed in Dify: {', '.join(fields)}"
            return {**props, "credential_id": stored.id, "drift": drift}

        return observed(id_, id_, props, look)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Change values in place; another model or name is another credential."""
        return compared(
            _olds,
            _news,
            updates=ACCESS | {"fields", "secrets", "drift"},
            replaces=frozenset({"provider", "model", "model_type", "credential_name"}),
        )

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Store changed values. Dify calls the upstream with them; when that fails, the old ones stay."""
        if all(olds.get(part) == news.get(part) for part in ("fields", "secrets", "drift")):
            return dynamic.UpdateResult({**news, "credential_id": olds["credential_id"]})
        # Dify shows eight characters of a secret, and no field without a value: neither a new secret nor a field that
        # was added or removed has to be a difference to what Dify has.
        force = any(olds.get(part) != news[part] for part in ("fields", "secrets"))
        key = Models(console=_saving_console(news)).save(_place(news), _credential(news), force=force)
        return dynamic.UpdateResult({**news, "credential_id": key, "drift": NO_DRIFT})

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Delete the credential, and the model with it."""
        models = Models(console=hasty_console(props))
        delete_or_tell(id_, lambda: models.delete(_place(props), props["credential_name"]))


class DefaultModelsProvider(dynamic.ResourceProvider):
    """The default models of the workspace, by type."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Set the default models."""
        Models(console=_saving_console(props)).set_defaults(props["models"])
        return dynamic.CreateResult("default-models", props)

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the default models that Dify has now."""

        def look() -> dict[str, Any]:
            models = Models(console=hasty_console(props))
            return {**props, "models": {kind: models.default(kind) or {} for kind in props["models"]}}

        return observed("default models", id_, props, look)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Everything changes in place."""
        return compared(_olds, _news, updates=ACCESS | {"models"}, replaces=frozenset())

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Set the default models that changed."""
        changed = {kind: one for kind, one in news["models"].items() if olds["models"].get(kind) != one}
        if changed:
            Models(console=_saving_console(news)).set_defaults(changed)
        return dynamic.UpdateResult(news)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Do nothing: Dify has no way to unset a default model."""
        pulumi.log.info(f"the default models stay in Dify: {', '.join(props['models'])}")


def _saving_console(props: dict[str, Any]) -> Console:
    return patient_console(props, seconds=SAVE_SECONDS)


def _place(props: dict[str, Any]) -> Place:
    return Place(provider=props["provider"], model=props["model"], type=props["model_type"])


def _id_of(props: dict[str, Any]) -> str:
    return "/".join(part for part in (props["provider"], props["model_type"], props["model"]) if part)


def _credential(props: dict[str, Any]) -> Credential:
    secrets: dict[str, str] = props["secrets"]
    return Credential(
        name=props["credential_name"], values={**props["fields"], **secrets}, secrets=frozenset(secrets)
    )
