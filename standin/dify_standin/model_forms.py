"""Saving credentials: the form of the provider, then a call of the endpoint, then the database."""

from collections.abc import Mapping
from typing import Any

from dify_standin import credentials, plugins
from dify_standin.errors import ApiError
from dify_standin.provider_catalogue import Provider

Json = dict[str, Any]

REFUSED = "CredentialsValidateFailedError"


class RefusedError(Exception):
    """The endpoint refused a credential; the text says why."""


def model_form(provider: Provider) -> Json:
    """Return the form of a model's credential. Raises ApiError for a provider without one."""
    return _form(provider, "model_credential_schema")


def provider_form(provider: Provider) -> Json:
    """Return the form of a provider's credential. Raises ApiError for a provider without one."""
    return _form(provider, "provider_credential_schema")


def _form(provider: Provider, name: str) -> Json:
    form: Json | None = provider.declared[name]
    if form is None:
        raise ApiError(400, "invalid_param", f"Provider {provider.name} does not have {name}")
    return form


def model_values(
    provider: Provider, model: str, model_type: str, given: Mapping[str, Any], stored: Mapping[str, Any]
) -> Json:
    """Return the values to keep for a model, validated. Raises ApiError and RefusedError."""
    form = model_form(provider)
    values = credentials.checked(form, credentials.with_kept(given, stored), model_type)
    _ask(
        provider,
        "validate_model_credentials",
        {"model": model, "model_type": model_type, "credentials": values},
    )
    return values


def provider_values(provider: Provider, given: Mapping[str, Any], stored: Mapping[str, Any]) -> Json:
    """Return the values to keep for a provider, validated. Raises ApiError and RefusedError."""
    values = credentials.checked(provider_form(provider), credentials.with_kept(given, stored))
    _ask(provider, "validate_provider_credentials", {"credentials": values})
    return values


def _ask(provider: Provider, call: str, data: Json) -> None:
    try:
        plugins.invoke(provider.plugin, f"model/{call}", {"provider": provider.declared["provider"], **data})
    except plugins.DaemonError as problem:
        if problem.kind == REFUSED:
            raise RefusedError(str(problem)) from None
        raise ApiError(500, "unknown", "Internal Server Error") from None
    except plugins.LostError:
        raise ApiError(500, "unknown", "Internal Server Error") from None
