"""Plugin packages (`.difypkg`): what the plugin daemon reads of the manifest and of the model provider inside."""

import fnmatch
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Json = dict[str, Any]

MANIFEST = "manifest.yaml"
VERIFICATION = ".verification.dify.json"
LARGEST_ENTRY = 64 * 1024 * 1024
MANIFEST_LANGUAGES = ("en_US", "zh_Hans", "pt_BR", "ja_JP")
MODEL_LANGUAGES = ("zh_Hans", "en_US")
KINDS = ("tools", "models", "endpoints", "datasources", "triggers")
MODEL_TYPES = ("llm", "text-embedding", "rerank", "speech2text", "moderation", "tts")
_NAME = re.compile(r"[a-z0-9_-]{1,128}")
_VERSION = re.compile(r"\d{1,4}(\.\d{1,4}){1,3}(-\w{1,16})?")


class PackageError(Exception):
    """A file that is no package; the text goes to the caller."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package. `identifier` has the hash of the file, so a signed and an unsigned file are two packages."""

    identifier: str
    declaration: Json
    signed: bool
    category: str | None

    @property
    def verification(self) -> Json | None:
        """Return what an upload says about the signature."""
        return {"authorized_category": self.category} if self.category else None


def plugin_of(identifier: str) -> str:
    """Return the plugin's id, `author/name`, of `author/name:version@hash`."""
    return identifier.partition(":")[0]


def version_of(identifier: str) -> str:
    """Return the version of an identifier."""
    return identifier.partition(":")[2].partition("@")[0]


def checksum_of(identifier: str) -> str:
    """Return the hash of an identifier."""
    return identifier.partition("@")[2]


def read(content: bytes) -> Package:
    """Read a package. Raises PackageError."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = _Files(archive)
            manifest = files.yaml(MANIFEST)
            comment = archive.comment
            verification = files.json(VERIFICATION) if VERIFICATION in files.names else {}
            declaration = _declaration(manifest, files, signed=b"signature" in comment)
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError):
        raise PackageError("difypkg: not a valid difypkg file") from None
    except (yaml.YAMLError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as problem:
        raise PackageError(f"difypkg: {MANIFEST} or a file that it names is invalid: {problem!r}") from None
    name = f"{declaration['author']}/{declaration['name']}:{declaration['version']}"
    return Package(
        identifier=f"{name}@{hashlib.sha256(content).hexdigest()}",
        declaration=declaration,
        signed=b"signature" in comment,
        category=verification.get("authorized_category"),
    )


class _Files:
    """The files of an archive, of a bounded size each."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = archive.namelist()

    def text(self, name: str) -> str:
        if name not in self.names:
            raise PackageError(f"difypkg: the package has no {name}")
        if self._archive.getinfo(name).file_size > LARGEST_ENTRY:
            raise PackageError(f"difypkg: {name} is larger than {LARGEST_ENTRY} bytes")
        return self._archive.read(name).decode()

    def yaml(self, name: str) -> Json:
        # Times become text, as in the daemon's JSON.
        found: Json = json.loads(json.dumps(yaml.safe_load(self.text(name)), default=_moment))
        return found

    def json(self, name: str) -> Json:
        found: Json = json.loads(self.text(name))
        return found

    def matching(self, pattern: str) -> Iterator[str]:
        for name in sorted(self.names):
            if fnmatch.fnmatchcase(name, pattern) and not name.rsplit("/", 1)[-1].startswith("_"):
                yield name


def _moment(value: Any) -> str:  # noqa: ANN401  # a date or a time of YAML
    return str(value.isoformat())


def _words(given: Any, languages: tuple[str, ...]) -> Json:  # noqa: ANN401  # a text or one text a language
    if not isinstance(given, Mapping):
        return dict.fromkeys(languages, "" if given is None else str(given))
    return {name: str(given.get(name) or given.get("en_US") or "") for name in languages}


def _words_or_none(given: Any) -> Json | None:  # noqa: ANN401  # a text or one text a language
    return _words(given, MODEL_LANGUAGES) if given else None


def _declaration(manifest: Json, files: _Files, *, signed: bool) -> Json:
    parts: Json = manifest.get("plugins") or {}
    if not _NAME.fullmatch(str(manifest["name"])) or not _NAME.fullmatch(str(manifest["author"])):
        raise PackageError(f"difypkg: {MANIFEST}: author and name must match {_NAME.pattern}")
    if not _VERSION.fullmatch(str(manifest["version"])):
        raise PackageError(f"difypkg: {MANIFEST}: version must match {_VERSION.pattern}")
    providers: list[str] = parts.get("models") or []
    return {
        "version": str(manifest["version"]),
        "author": manifest["author"],
        "name": manifest["name"],
        "description": _words(manifest.get("description"), MANIFEST_LANGUAGES),
        "icon": manifest.get("icon") or "",
        "icon_dark": manifest.get("icon_dark") or "",
        "label": _words(manifest.get("label"), MANIFEST_LANGUAGES),
        "category": "model" if providers else "tool" if parts.get("tools") else "extension",
        "created_at": manifest.get("created_at") or "",
        "resource": _resource(manifest.get("resource") or {}),
        "plugins": {kind: parts.get(kind) or None for kind in KINDS},
        "tags": manifest.get("tags") or [],
        "repo": manifest.get("repo"),
        "verified": signed,
        "tool": None,
        "model": _provider(files.yaml(providers[0]), files) if providers else None,
    }


def _resource(given: Json) -> Json:
    asked: Json = given.get("permission") or {}
    kinds = ("enabled", "llm", "text_embedding", "rerank", "tts", "speech2text", "moderation")
    model = asked.get("model")
    return {
        "memory": given.get("memory", 0),
        "permission": {
            "tool": asked.get("tool"),
            "model": {kind: bool(model.get(kind)) for kind in kinds} if model else None,
            "node": asked.get("node"),
            "endpoint": asked.get("endpoint"),
            "storage": asked.get("storage"),
        },
    }


def _provider(given: Json, files: _Files) -> Json:
    provider_form, model_form = given.get("provider_credential_schema"), given.get("model_credential_schema")
    return {
        "provider": given["provider"],
        "provider_name": "",
        "label": _words(given["label"], MODEL_LANGUAGES),
        "description": _words_or_none(given.get("description")),
        "icon_small": _words_or_none(given.get("icon_small")),
        "icon_small_dark": _words_or_none(given.get("icon_small_dark")),
        "background": given.get("background"),
        "help": given.get("help"),
        "supported_model_types": [_kind(one) for one in given["supported_model_types"]],
        "configurate_methods": list(given["configurate_methods"]),
        "models": list(_predefined(given.get("models") or {}, files)),
        "provider_credential_schema": _form(provider_form) if provider_form else None,
        "model_credential_schema": {"model": _model_field(model_form), **_form(model_form)}
        if model_form
        else None,
    }


def _kind(given: str) -> str:
    kind = str(given).replace("text_embedding", "text-embedding")
    if kind not in MODEL_TYPES:
        raise PackageError(f"difypkg: the model type {given!r} is none of {', '.join(MODEL_TYPES)}")
    return kind


def _model_field(form: Json) -> Json:
    field = form.get("model") or {"label": "Model Name"}
    return {
        "label": _words(field.get("label"), MODEL_LANGUAGES),
        "placeholder": _words_or_none(field.get("placeholder")),
    }


def _form(form: Json) -> Json:
    return {"credential_form_schemas": [_field(one) for one in form["credential_form_schemas"]]}


def _field(given: Json) -> Json:
    default = given.get("default")
    return {
        "variable": given["variable"],
        "label": _words(given["label"], MODEL_LANGUAGES),
        "type": given["type"],
        "required": bool(given.get("required", True)),
        "default": None if default is None else str(default),
        "options": [
            {
                "label": _words(one["label"], MODEL_LANGUAGES),
                "value": str(one["value"]),
                "show_on": one.get("show_on") or [],
            }
            for one in given.get("options") or []
        ],
        "placeholder": _words_or_none(given.get("placeholder")),
        "max_length": given.get("max_length", 0),
        "show_on": [
            {"variable": one["variable"], "value": str(one["value"])} for one in given.get("show_on") or []
        ],
    }


def _predefined(models: Json, files: _Files) -> Iterator[Json]:
    for described in models.values():
        for pattern in described.get("predefined") or []:
            for name in files.matching(pattern):
                model = files.yaml(name)
                yield {
                    "model": model["model"],
                    "label": _words(model.get("label") or model["model"], MODEL_LANGUAGES),
                    "model_type": _kind(model["model_type"]),
                    "features": model.get("features") or [],
                    "fetch_from": "predefined-model",
                    "model_properties": model.get("model_properties") or {},
                    "deprecated": bool(model.get("deprecated")),
                    "parameter_rules": model.get("parameter_rules") or [],
                    "pricing": model.get("pricing"),
                }
