"""The models of a workspace: their state, the defaults, and the credential that each is called with."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from dify_standin import model_records, plugins, store
from dify_standin.config import integer
from dify_standin.errors import ApiError
from dify_standin.provider_catalogue import CUSTOMIZABLE, PREDEFINED, Provider, provider, providers

Json = dict[str, Any]

ACTIVE, DISABLED, NO_CONFIGURE = "active", "disabled", "no-configure"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that can be called: through which plugin, and with which credential."""

    provider: Provider
    name: str
    model_type: str
    credentials: Json
    pricing: Json | None

    def data(self, **more: Any) -> Json:  # noqa: ANN401  # JSON
        """Return what a call of this model sends to the plugin daemon."""
        return {
            "provider": self.provider.declared["provider"],
            "model_type": self.model_type,
            "model": self.name,
            "credentials": self.credentials,
            **more,
        }


def entries(one: Provider) -> list[Json]:
    """Return the models of a provider that are listed, by type: those that it has by itself, then those added.

    One that was added is left out while its plugin does not run and was not asked for it within the last hour.
    """
    tenant = plugins.tenant_id()
    off = model_records.disabled_models(tenant, one.name)
    found = [*_predefined(one, tenant), *_customized(one, tenant)]
    return [
        {**model, "status": DISABLED} if (model["model"], model["model_type"]) in off else model
        for model in sorted(found, key=itemgetter("model_type"))
    ]


def _entry(model: str, label: Json, model_type: str, features: list[str] | None, properties: Json) -> Json:
    return {
        "model": model,
        "label": label,
        "model_type": model_type,
        "features": features,
        "fetch_from": CUSTOMIZABLE,
        "model_properties": properties,
        "deprecated": False,
        "status": ACTIVE,
        "load_balancing_enabled": False,
        "has_invalid_load_balancing_configs": False,
    }


def _predefined(one: Provider, tenant: str) -> Iterator[Json]:
    configured = model_records.current_provider_credential(tenant, one.name) is not None
    for model in one.predefined():
        entry = _entry(
            model["model"], model["label"], model["model_type"], model["features"], model["model_properties"]
        )
        yield {
            **entry,
            "fetch_from": PREDEFINED,
            "deprecated": model["deprecated"],
            "status": ACTIVE if configured else NO_CONFIGURE,
        }


def _customized(one: Provider, tenant: str) -> Iterator[Json]:
    for row in model_records.listed_models(tenant, one.name):
        schema = _schema(one, tenant, row)
        if schema:
            yield _entry(
                row["model"],
                schema["label"],
                row["model_type"],
                schema["features"],
                schema["model_properties"],
            )


def _schema(one: Provider, tenant: str, row: Json) -> Json | None:
    """Return how the plugin, or the cache, describes a model with these values; None while the plugin does not run."""
    name, kind, values = row["model"], row["model_type"], row["secrets"]
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    key = f"standin:schema:{tenant}:{one.name}:{kind}:{name}:{digest}"
    kept = store.cache().get(key)
    if kept is not None:
        found: Json = json.loads(kept)
        return found
    asked = Model(provider=one, name=name, model_type=kind, credentials=values, pricing=None)
    try:
        found = plugins.invoke(one.plugin, "model/schema", asked.data())["model_schema"]
    except (plugins.DaemonError, plugins.LostError):
        return None
    store.cache().set(key, json.dumps(found), ex=integer("PLUGIN_MODEL_SCHEMA_CACHE_TTL", 3600))
    return found


def active(model_type: str) -> Iterator[tuple[Provider, Json]]:
    """Yield the active models of a type, with their providers."""
    for one in providers():
        for entry in entries(one):
            if entry["model_type"] == model_type and entry["status"] == ACTIVE:
                yield one, entry


def default(model_type: str) -> tuple[Provider, str] | None:
    """Return the default of a type. Where none is set, the first active model becomes it.

    A default whose plugin is not installed is none; one whose credential is gone stays.
    """
    tenant = plugins.tenant_id()
    found = model_records.default_model(tenant, model_type)
    if found is None:
        first = next(active(model_type), None)
        if first is None:
            return None
        model_records.set_default_model(tenant, model_type, first[0].name, first[1]["model"])
        return first[0], first[1]["model"]
    owner = next((one for one in providers() if one.name == found["provider"]), None)
    return (owner, found["model"]) if owner else None


def set_default(model_type: str, provider_name: str, model: str) -> None:
    """Set the default of a type. Raises ApiError for an unknown provider or a model that is not active."""
    one = provider(provider_name)
    names = {entry["model"] for owner, entry in active(model_type) if owner.name == one.name}
    if model not in names:
        raise ApiError(400, "invalid_param", f"Model {model} does not exist.")
    model_records.set_default_model(plugins.tenant_id(), model_type, one.name, model)


def callable_model(provider_name: str, name: str, model_type: str) -> Model:
    """Return a model with its credential. Raises ApiError in Dify's words for one that cannot be called."""
    one = provider(provider_name)
    tenant = plugins.tenant_id()
    entry = next((e for e in entries(one) if (e["model"], e["model_type"]) == (name, model_type)), None)
    if entry is None:
        raise ApiError(400, "invalid_param", f"Model {name} not exist.")
    if entry["status"] == DISABLED:
        raise ApiError(400, "invalid_param", f"Model {name} is disabled.")
    kept = model_records.current_model_credential((tenant, one.name, name, model_type))
    if kept is None and entry["fetch_from"] == PREDEFINED:
        kept = model_records.current_provider_credential(tenant, one.name)
    if entry["status"] == NO_CONFIGURE or kept is None:
        raise ApiError(400, "invalid_param", f"Model {name} credentials is not initialized.")
    pricing = next((m["pricing"] for m in one.predefined() if m["model"] == name), None)
    return Model(provider=one, name=name, model_type=model_type, credentials=kept["secrets"], pricing=pricing)
