"""The model providers of the installed plugins, as api sees them: what the daemon declares, and what follows of it."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dify_standin import plugins, store
from dify_standin.config import text
from dify_standin.errors import ApiError

Json = dict[str, Any]

CUSTOMIZABLE = "customizable-model"
PREDEFINED = "predefined-model"
AUTHOR = "langgenius"
_KEPT = 86_400


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One provider. `name` is `author/plugin/provider`."""

    name: str
    plugin: str
    identifier: str
    declared: Json

    @property
    def label(self) -> str:
        """Return the provider's name for people, which errors of its models begin with."""
        return str(self.declared["label"]["en_US"])

    def predefined(self) -> list[Json]:
        """Return the models that the provider lists by itself."""
        found: list[Json] = self.declared["models"]
        return found

    def icons(self, kind: str) -> Json | None:
        """Return where the console finds an icon, in each language."""
        if not self.declared.get(kind):
            return None
        base = f"{text('CONSOLE_API_URL')}/console/api/workspaces/{plugins.tenant_id()}/model-providers/{self.name}"
        return {language: f"{base}/{kind}/{language}" for language in ("zh_Hans", "en_US")}

    def short(self) -> Json:
        """Return the provider as lists of models show it."""
        return {
            "provider": self.name,
            "provider_name": "",
            "label": self.declared["label"],
            "icon_small": self.icons("icon_small"),
            "icon_small_dark": self.icons("icon_small_dark"),
            "supported_model_types": self.declared["supported_model_types"],
            "tenant_id": plugins.tenant_id(),
            "models": [],
        }


def full_name(name: str) -> str:
    """Return a provider's full name; one word is the plugin and the provider of that name by Dify's own author."""
    return name if "/" in name else f"{AUTHOR}/{name}/{name}"


def providers() -> list[Provider]:
    """Return the providers of the installed plugins. While the daemon does not answer, they are those seen last.

    Raises ApiError when none were seen before.
    """
    tenant = plugins.tenant_id()
    key = f"standin:providers:{tenant}"
    try:
        found = plugins.call("management/models", page=1, page_size=plugins.MOST)
    except ApiError:
        kept = store.cache().get(key)
        if kept is None:
            raise
        found = json.loads(kept)
    else:
        with contextlib.suppress(Exception):
            store.cache().set(key, json.dumps(found), ex=_KEPT)
    return list(_read(found or []))


def _read(found: list[Json]) -> Iterator[Provider]:
    for one in found:
        yield Provider(
            name=f"{one['plugin_id']}/{one['provider']}",
            plugin=one["plugin_id"],
            identifier=one["plugin_unique_identifier"],
            declared=one["declaration"],
        )


def provider(name: str) -> Provider:
    """Return a provider by its full or short name. Raises ApiError in Dify's words."""
    wanted = full_name(name)
    found = next((one for one in providers() if one.name == wanted), None)
    if found is None:
        raise ApiError(400, "invalid_param", f"Provider {wanted} does not exist.")
    return found
