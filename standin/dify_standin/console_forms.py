"""Bodies and queries of the console's routes for models, checked by pydantic, with the errors of the release."""

import uuid
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator

from dify_standin.dialect import dialect
from dify_standin.errors import ApiError
from dify_standin.refusals import pydantic_json, pydantic_text

Json = dict[str, Any]
Form = TypeVar("Form", bound=BaseModel)


class ModelType(StrEnum):
    """The types of models."""

    LLM = "llm"
    TEXT_EMBEDDING = "text-embedding"
    RERANK = "rerank"
    SPEECH2TEXT = "speech2text"
    MODERATION = "moderation"
    TTS = "tts"


def _uuid(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError(f"{value} is not a valid uuid.") from None


class _WithId(BaseModel):
    credential_id: str

    @field_validator("credential_id")
    @classmethod
    def _is_uuid(cls, value: str) -> str | None:
        return _uuid(value)


class _WithOptionalId(BaseModel):
    credential_id: str | None = None

    @field_validator("credential_id")
    @classmethod
    def _is_uuid(cls, value: str | None) -> str | None:
        return _uuid(value)


class _OfModel(BaseModel):
    model: str
    model_type: ModelType


class ParserGetDefault(BaseModel):
    """The query of GET default-model."""

    model_type: ModelType


class ParserDefaultModel(BaseModel):
    """One entry of POST default-model."""

    model_type: ModelType
    provider: str | None = None
    model: str | None = None


class ParserPostDefault(BaseModel):
    """The body of POST default-model."""

    model_settings: list[ParserDefaultModel]


class ParserDeleteModels(_OfModel):
    """What DELETE models and PATCH models/enable take."""


class ParserPostModels(_OfModel, _WithOptionalId):
    """The body of POST models."""

    config_from: str | None = None


class ParserGetCredentials(_OfModel, _WithOptionalId):
    """The query of GET models/credentials."""


class ParserCreateCredential(_OfModel):
    """The body of POST models/credentials."""

    name: str | None = Field(default=None, max_length=30)
    credentials: Json


class ParserUpdateCredential(_OfModel, _WithId):
    """The body of PUT models/credentials."""

    name: str | None = Field(default=None, max_length=30)
    credentials: Json


class ParserDeleteCredential(_OfModel):
    """What DELETE models/credentials takes."""

    credential_id: str

    @field_validator("credential_id")
    @classmethod
    def _is_uuid(cls, value: str) -> str | None:
        return _uuid(value)


class ParserSwitch(_OfModel, _WithId):
    """The body of POST models/credentials/switch."""


class ParserValidate(_OfModel):
    """The body of POST models/credentials/validate."""

    credentials: Json


class ParserCredentialCreate(BaseModel):
    """The body of POST credentials of a provider."""

    name: str | None = Field(default=None, max_length=30)
    credentials: Json


class ParserCredentialUpdate(_WithId):
    """The body of PUT credentials of a provider."""

    name: str | None = Field(default=None, max_length=30)
    credentials: Json


class ParserCredentialId(_WithId):
    """The body that names a credential of a provider."""


class ParserCredentialQuery(_WithOptionalId):
    """The query of GET credentials of a provider."""


class ParserCredentialValidate(BaseModel):
    """The body of POST credentials/validate of a provider."""

    credentials: Json


def validated(form: type[Form], given: Any) -> Form:  # noqa: ANN401  # JSON
    """Return what a request sent. Raises ApiError: 422 with pydantic's list, before 1.17 a 400 with its text."""
    try:
        return form.model_validate(given)
    except ValidationError as problem:
        if dialect().unprocessable:
            raise ApiError(422, "unprocessable_entity", pydantic_json(problem)) from None
        raise ApiError(400, "invalid_param", pydantic_text(problem)) from None
