"""What api keeps of models in its database: credentials, which one is current, what is listed, enabled and default."""

import json
import uuid
from typing import Any

from dify_standin import store

Json = dict[str, Any]

_OF_MODEL = "tenant_id = %s and provider = %s and model = %s and model_type = %s"
_OF_PROVIDER = "tenant_id = %s and provider = %s"
Key = tuple[str, str, str, str]


def model_credentials(key: Key) -> list[store.Row]:
    """Return the credentials of a model (workspace, provider, model, type), the newest first."""
    return store.rows(f"select * from model_credentials where {_OF_MODEL} order by created_at desc", *key)  # noqa: S608


def model_credential(key: Key, credential_id: str) -> store.Row | None:
    """Return one credential of a model."""
    return next((one for one in model_credentials(key) if str(one["id"]) == credential_id), None)


def current_model_credential(key: Key) -> store.Row | None:
    """Return the credential that is in force for a model."""
    found = store.row(f"select credential_id from listed_models where {_OF_MODEL}", *key)  # noqa: S608
    return model_credential(key, str(found["credential_id"])) if found else None


def add_model_credential(key: Key, name: str, values: Json) -> None:
    """Keep a credential; the first of a model that has none in force lists the model with it."""
    made = str(uuid.uuid4())
    store.rows(
        "insert into model_credentials (id, tenant_id, provider, model, model_type, name, secrets) "
        "values (%s, %s, %s, %s, %s, %s, %s)",
        made,
        *key,
        name,
        json.dumps(values),
    )
    store.rows(
        "insert into listed_models (tenant_id, provider, model, model_type, credential_id) "
        "values (%s, %s, %s, %s, %s) on conflict do nothing",
        *key,
        made,
    )


def change_model_credential(credential_id: str, name: str, values: Json) -> None:
    """Replace a credential's name and values."""
    store.rows(
        "update model_credentials set name = %s, secrets = %s where id = %s",
        name,
        json.dumps(values),
        credential_id,
    )


def list_model(key: Key, credential_id: str) -> None:
    """List a model with a credential, which is in force from now on."""
    store.rows(
        "insert into listed_models (tenant_id, provider, model, model_type, credential_id) "
        "values (%s, %s, %s, %s, %s) on conflict (tenant_id, provider, model, model_type) "
        "do update set credential_id = excluded.credential_id",
        *key,
        credential_id,
    )


def unlist_model(key: Key) -> None:
    """Take a model out of the list; its credentials stay."""
    store.rows(f"delete from listed_models where {_OF_MODEL}", *key)  # noqa: S608  # a constant


def delete_model_credential(key: Key, credential_id: str) -> None:
    """Delete a credential. The model of the one in force is not listed any more, though it may have others."""
    store.rows("delete from model_credentials where id = %s", credential_id)
    store.rows(f"delete from listed_models where {_OF_MODEL} and credential_id = %s", *key, credential_id)  # noqa: S608


def listed_models(tenant: str, provider: str) -> list[store.Row]:
    """Return the models of a provider that are listed, by type and age, with their credential's values."""
    return store.rows(
        "select l.*, c.secrets from listed_models l join model_credentials c on c.id = l.credential_id "
        "where l.tenant_id = %s and l.provider = %s order by l.model_type, l.created_at",
        tenant,
        provider,
    )


def disabled_models(tenant: str, provider: str) -> set[tuple[str, str]]:
    """Return name and type of the models that are disabled."""
    found = store.rows(f"select * from disabled_models where {_OF_PROVIDER}", tenant, provider)  # noqa: S608
    return {(one["model"], one["model_type"]) for one in found}


def enable_model(key: Key, *, enabled: bool) -> None:
    """Enable or disable a model."""
    if enabled:
        store.rows(f"delete from disabled_models where {_OF_MODEL}", *key)  # noqa: S608  # a constant
    else:
        store.rows(
            "insert into disabled_models (tenant_id, provider, model, model_type) values (%s, %s, %s, %s) "
            "on conflict do nothing",
            *key,
        )


def provider_credentials(tenant: str, provider: str) -> list[store.Row]:
    """Return the credentials of a provider, the newest first."""
    return store.rows(
        f"select * from provider_credentials where {_OF_PROVIDER} order by created_at desc",  # noqa: S608
        tenant,
        provider,
    )


def provider_credential(tenant: str, provider: str, credential_id: str) -> store.Row | None:
    """Return one credential of a provider."""
    found = provider_credentials(tenant, provider)
    return next((one for one in found if str(one["id"]) == credential_id), None)


def current_provider_credential(tenant: str, provider: str) -> store.Row | None:
    """Return the credential that is in force for a provider."""
    found = store.row(
        f"select credential_id from current_provider_credentials where {_OF_PROVIDER}",  # noqa: S608
        tenant,
        provider,
    )
    return provider_credential(tenant, provider, str(found["credential_id"])) if found else None


def add_provider_credential(tenant: str, provider: str, name: str, values: Json) -> None:
    """Keep a credential; the first is in force."""
    made = str(uuid.uuid4())
    store.rows(
        "insert into provider_credentials (id, tenant_id, provider, name, secrets) values (%s, %s, %s, %s, %s)",
        made,
        tenant,
        provider,
        name,
        json.dumps(values),
    )
    store.rows(
        "insert into current_provider_credentials (tenant_id, provider, credential_id) values (%s, %s, %s) "
        "on conflict do nothing",
        tenant,
        provider,
        made,
    )


def change_provider_credential(credential_id: str, name: str, values: Json) -> None:
    """Replace a credential's name and values."""
    store.rows(
        "update provider_credentials set name = %s, secrets = %s where id = %s",
        name,
        json.dumps(values),
        credential_id,
    )


def use_provider_credential(tenant: str, provider: str, credential_id: str) -> None:
    """Put a credential of a provider in force."""
    store.rows(
        "insert into current_provider_credentials (tenant_id, provider, credential_id) values (%s, %s, %s) "
        "on conflict (tenant_id, provider) do update set credential_id = excluded.credential_id",
        tenant,
        provider,
        credential_id,
    )


def delete_provider_credential(tenant: str, provider: str, credential_id: str) -> None:
    """Delete a credential of a provider; without the one in force, none is."""
    store.rows("delete from provider_credentials where id = %s", credential_id)
    store.rows(
        f"delete from current_provider_credentials where {_OF_PROVIDER} and credential_id = %s",  # noqa: S608
        tenant,
        provider,
        credential_id,
    )


def delete_provider_credentials(tenant: str, provider_prefix: str) -> None:
    """Delete the provider-level credentials of a plugin's providers."""
    for one in store.rows("select distinct provider from provider_credentials where tenant_id = %s", tenant):
        if one["provider"].startswith(f"{provider_prefix}/"):
            for kept in provider_credentials(tenant, one["provider"]):
                delete_provider_credential(tenant, one["provider"], str(kept["id"]))


def default_model(tenant: str, model_type: str) -> store.Row | None:
    """Return provider and model of the default of a type."""
    return store.row(
        "select * from default_models where tenant_id = %s and model_type = %s", tenant, model_type
    )


def set_default_model(tenant: str, model_type: str, provider: str, model: str) -> None:
    """Set the default of a type."""
    store.rows(
        "insert into default_models (tenant_id, model_type, provider, model) values (%s, %s, %s, %s) "
        "on conflict (tenant_id, model_type) do update set provider = excluded.provider, model = excluded.model",
        tenant,
        model_type,
        provider,
        model,
    )
