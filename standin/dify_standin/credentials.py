"""Credentials of models and providers: the fields that a provider asks for, and how secrets are hidden."""

from collections.abc import Iterator, Mapping
from typing import Any

from dify_standin.errors import ApiError

Json = dict[str, Any]

# What a client sends for a secret that it does not change.
HIDDEN = "[__HIDDEN__]"
SECRET = "secret-input"  # noqa: S105  # a type of fields
SHORTEST_SHOWN = 8


def fields(form: Json, model_type: str | None = None) -> Iterator[Json]:
    """Yield the fields of a form that concern a type of model."""
    for one in form["credential_form_schemas"]:
        wanted = [rule["value"] for rule in one["show_on"] if rule["variable"] == "__model_type"]
        if not wanted or model_type in wanted:
            yield one


def checked(form: Json, given: Mapping[str, Any], model_type: str | None = None) -> Json:
    """Return the values that a form takes, with its defaults. Raises ApiError for a missing or wrong one.

    Unknown fields are dropped. A value that is no text is the 500 that Dify makes of it.
    """
    values: Json = {}
    for one in fields(form, model_type):
        name = one["variable"]
        if not _is_shown(one, given):
            continue
        value = given.get(name)
        if not value:
            if one["required"]:
                raise _invalid(f"Variable {name} is required")
            if one["default"] is not None:
                values[name] = one["default"]
            continue
        if not isinstance(value, str):
            raise ApiError(500, "unknown", "Internal Server Error")
        _check_value(one, value)
        values[name] = value
    return values


def _is_shown(one: Json, given: Mapping[str, Any]) -> bool:
    rules = [rule for rule in one["show_on"] if rule["variable"] != "__model_type"]
    return all(str(given.get(rule["variable"])) == rule["value"] for rule in rules)


def _check_value(one: Json, value: str) -> None:
    name, options = one["variable"], [option["value"] for option in one["options"]]
    if options and value not in options:
        raise _invalid(f"Variable {name} is not in options")
    if one["max_length"] and len(value) > one["max_length"]:
        raise _invalid(f"Variable {name} length should not be greater than {one['max_length']}")


def with_kept(given: Mapping[str, Any], stored: Mapping[str, Any]) -> Json:
    """Return given values, with the stored one where a secret is hidden."""
    return {name: stored.get(name, "") if value == HIDDEN else value for name, value in given.items()}


def masked(form: Json, values: Mapping[str, Any], model_type: str | None = None) -> Json:
    """Return stored values as an answer shows them: of a secret six characters, twelve stars and two characters."""
    secret = {one["variable"] for one in fields(form, model_type) if one["type"] == SECRET}
    return {name: mask(str(value)) if name in secret else value for name, value in values.items()}


def mask(secret: str) -> str:
    """Return what is shown of a secret; of a short one nothing."""
    if not secret:
        return ""
    if len(secret) <= SHORTEST_SHOWN:
        return "*" * 20
    return f"{secret[:6]}{'*' * 12}{secret[-2:]}"


def _invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_param", message)
