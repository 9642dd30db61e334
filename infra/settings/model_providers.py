"""The models of Dify's workspace: `dify:modelProviders` and `dify:modelCredentials`."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from infra import hints
from infra.catalogue import checks, ports
from infra.settings.dify import Plugins
from infra.settings.given import SEALED
from infra.settings.llm import Llm
from infra.settings.plugin_packages import Package, read_package
from infra.settings.proxy_keys import DIFY_KEY
from infra.settings.reader import Section
from infra.settings.stack_secrets import SecretReader

if TYPE_CHECKING:
    import pulumi

CREDENTIALS = "modelCredentials"
AUTO = "auto"
LLM, EMBEDDING = "llm", "text-embedding"
TYPES = (LLM, EMBEDDING, "rerank", "speech2text", "moderation", "tts")
# Inside the stack's network; the port is never published.
ENDPOINT = f"http://nginx:{ports.EDGE_LLM}/llm/v1"
# The name of the kit's credentials in Dify, by which they are found again.
CREDENTIAL_NAME = "dify-kit"
MAX_NAME = 30
_PROVIDER = re.compile(r"[a-z0-9_-]+/[a-z0-9_-]+/[a-z0-9_-]+")
_ENTRY: Mapping[str, Any] = MappingProxyType(
    {"provider": "", "model": "", "type": "", "name": CREDENTIAL_NAME, "credentials": {}, "secret": ""}
)


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A model with its credential; without a model and a type, the credential of a whole provider.

    `fields` are the plain ones, `secrets` the others as an object in JSON. All values are texts, as Dify requires.
    """

    provider: str
    model: str
    type: str
    name: str
    fields: Mapping[str, str]
    secrets: "pulumi.Output[str]"

    @property
    def plugin(self) -> str:
        """The plugin that brings the provider."""
        return self.provider.rpartition("/")[0]


@dataclass(frozen=True, kw_only=True)
class Default:
    """The model that a workspace uses where an app names none."""

    provider: str
    model: str


@dataclass(frozen=True, kw_only=True)
class ModelProviders:
    """Plugins, credentials and default models by type, fully checked."""

    plugins: tuple[Package, ...]
    credentials: tuple[Credential, ...]
    defaults: Mapping[str, Default]


class ModelProvidersReader:
    """Reads `dify:modelProviders`.

    `llm` are the settings of the LLM proxy, None when it is off; `dify_key` is Dify's key for it, as stored.
    """

    def __init__(
        self, top: Section, *, secrets: SecretReader, llm: Llm | None, plugins: Plugins, dify_key: str
    ) -> None:
        self._section = top.part("modelProviders")
        self._problems = top.problems
        self._secrets = secrets
        self._llm = llm
        self._plugins = plugins
        self._dify_key = dify_key
        self._given: Mapping[str, Any] | None = {}

    def read(self) -> ModelProviders:
        """Return the settings; only to be used when no problem was reported."""
        self._given = self._secrets.by_name(CREDENTIALS)
        packages = [self._package(key, value) for key, value in self._listed("plugins")]
        self._check_listed_once(packages)
        given = [self._credential(key, value) for key, value in self._listed("models")]
        proxied = self._proxied(packages)
        credentials = [*proxied, *given]
        self._check_unique(credentials)
        self._check_used()
        return ModelProviders(
            plugins=tuple(one for one in packages if one),
            credentials=tuple(credentials),
            defaults=self._defaults(credentials, proxied),
        )

    def _listed(self, part: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the objects of a list with their keys."""
        value, key = self._section.raw(part), self._section.key(part)
        if not isinstance(value, list):
            self._problems.add(key, value, "not a list", f"use {key}: []")
            return []
        found = []
        for number, one in enumerate(value):
            if isinstance(one, dict):
                found.append((f"{key}[{number}]", one))
            else:
                self._problems.add(
                    f"{key}[{number}]", one, "not an object", "docs/guides/models.md has examples"
                )
        return found

    def _package(self, key: str, value: Mapping[str, Any]) -> Package | None:
        return read_package(
            Section(
                self._problems, value, {"identifier": "", "file": "", "sha256": "", "keep": True}, f"{key}."
            ),
            self._plugins,
        )

    def _check_listed_once(self, packages: Sequence[Package | None]) -> None:
        first: dict[str, int] = {}
        for number, one in enumerate(packages):
            if one and first.setdefault(one.plugin, number) != number:
                self._problems.add(
                    f"{self._section.key('plugins')}[{number}]",
                    one.pinned or one.plugin,
                    f"is the plugin of plugins[{first[one.plugin]}] again",
                    "list it once: a workspace has one version of a plugin",
                )

    def _check_used(self) -> None:
        """Warn of secret fields that no model takes. They may be set before the model that takes them."""
        key = self._section.key("models")
        models = self._section.raw("models")
        entries = [one for one in models if isinstance(one, dict)] if isinstance(models, list) else []
        for name in sorted(set(self._given or ()) - {str(one.get("secret")) for one in entries}):
            self._problems.warnings.append(
                f"dify:{CREDENTIALS}.{name}: no entry of {key} takes it; name it in one by `secret: {name}`, or "
                f"`{hints.kit('unset', f'{CREDENTIALS}.{name}', stack=self._problems.stack)}` removes it"
            )

    def _proxied(self, packages: list[Package | None]) -> list[Credential]:
        """Return the models of the kit's own LLM proxy, and put its plugin in front of the others."""
        section = self._section.section("proxy", self._section.defaults["proxy"])
        self._check_proxy_fields(section)
        llm = self._llm
        if llm is None and section.raw("enabled") is True:
            self._problems.add(section.key("enabled"), True, "needs the LLM proxy", "set llm.enabled to true")
        if llm is None or not self._uses_proxy(section):
            return []
        parts = ("plugin", "file", "sha256")
        own = Section(
            self._problems,
            {part: section.raw(part) for part in parts},
            {**dict.fromkeys(parts, ""), "keep": True},
            section.prefix,
        )
        package = read_package(own, self._plugins, "plugin")
        if package is None:
            return []
        if package.plugin not in {one.plugin for one in packages if one}:
            packages.insert(0, package)
        if not self._secrets.is_set(DIFY_KEY):
            self._problems.add_secret(
                DIFY_KEY,
                "the secret is not set",
                f"`{hints.kit('up', stack=self._problems.stack)}` makes it",
            )
        # Its text is unknown where the secret is sealed.
        key = self._dify_key.partition(" ")[0]
        provider = f"{package.plugin}/{package.plugin.rpartition('/')[2]}"
        of_models = section.mapping("fields")
        for unknown in sorted(set(of_models) - {*llm.models, *llm.embeddings}):
            self._problems.add(
                section.key("fields"), unknown, "is not served", "name models of llm.models or llm.embeddings"
            )

        def entry(model: str, kind: str, base: Mapping[str, Any]) -> Credential:
            more = of_models.get(model, {})
            if not isinstance(more, dict):
                self._problems.add(
                    f"{section.key('fields')}.{model}", more, "not an object", "use {field: value}"
                )
                more = {}
            return Credential(
                provider=provider,
                model=model,
                type=kind,
                name=CREDENTIAL_NAME,
                fields={
                    "endpoint_url": ENDPOINT,
                    **self._texts(section.key("fields"), {**base, **more}),
                },
                secrets=self._secrets.conceal(json.dumps({"api_key": key})),
            )

        chat, embedding = (
            {**section.defaults[part], **section.mapping(part)} for part in ("chat", "embedding")
        )
        return [
            *(entry(model, LLM, chat) for model in llm.models),
            *(entry(model, EMBEDDING, embedding) for model in llm.embeddings),
        ]

    def _check_proxy_fields(self, section: Section) -> None:
        def fix(_: str) -> str:
            return (
                f"remove it: Dify calls the proxy with dify:{DIFY_KEY}; a model with a key of its own belongs in "
                f"{self._section.key('models')}, and its key in {CREDENTIALS}"
            )

        fields = section.raw("fields")
        of_models = (
            {f"fields.{model}": one for model, one in fields.items()} if isinstance(fields, dict) else {}
        )
        for part, one in {**{part: section.raw(part) for part in ("chat", "embedding")}, **of_models}.items():
            if isinstance(one, dict):
                self._refuse_secrets(section.key(part), one, fix)

    def _uses_proxy(self, section: Section) -> bool:
        """Tell whether Dify uses the proxy. With `auto` it does where the stack has all that is needed."""
        key, raw = section.key("enabled"), section.raw("enabled")
        if raw != AUTO:
            chosen = checks.boolean(raw)
            if chosen is None:
                self._problems.add(key, raw, "not a possible value", "use auto, true or false")
            return bool(chosen)
        missing = ""
        if not self._secrets.is_set(DIFY_KEY):
            missing = (
                "it has no key for Dify (a stack of an earlier version); "
                f"`{hints.kit('keys', 'rotate', 'dify', stack=self._problems.stack)}` makes one"
            )
        elif not self._plugins.marketplace and not section.text("file"):
            missing = f"plugins.marketplace is false; name the plugin's package in {section.key('file')}"
        if missing:
            self._problems.warnings.append(
                f"dify:{key}: {AUTO}: Dify gets no models of the LLM proxy from this stack: {missing}, "
                "or set it to false"
            )
        return not missing

    def _credential(self, key: str, value: Mapping[str, Any]) -> Credential:
        section = Section(self._problems, value, _ENTRY, f"{key}.")
        section.refuse_unknown()
        provider, model, kind = (section.text(part) for part in ("provider", "model", "type"))
        self._check_provider(section.key("provider"), provider)
        if bool(model) != bool(kind) or (kind and kind not in TYPES):
            self._problems.add(
                section.key("type"),
                kind,
                "does not fit the model",
                f"use one of {', '.join(TYPES)}, or leave out model and type for the provider's own credential",
            )
        name = section.text("name")
        if not 0 < len(name) <= MAX_NAME:
            self._problems.add(
                section.key("name"), name, "is not a credential's name", f"use 1 to {MAX_NAME} characters"
            )
        plain, key = section.mapping("credentials"), section.key("credentials")
        self._refuse_secrets(key, plain, partial(self._hide, section.text("secret")))
        return Credential(
            provider=provider,
            model=model,
            type=kind,
            name=name,
            fields=self._texts(key, plain),
            secrets=self._secrets.conceal(json.dumps(self._secret(section))),
        )

    def _hide(self, named: str, field: str) -> str:
        """Return how a field of an entry becomes a secret one; `named` is the set of them that it takes already."""
        name = named or "own"
        takes = "" if named else f", and add `secret: {name}` to the entry"
        command = hints.assign(f"{CREDENTIALS}.{name}.{field}", stack=self._problems.stack)
        return f"remove it, and store it with `{command}`{takes}"

    def _check_provider(self, key: str, provider: str) -> None:
        if not _PROVIDER.fullmatch(provider):
            self._problems.add(
                key,
                provider,
                "is not a provider",
                "use author/plugin/provider, such as langgenius/openai/openai",
            )

    def _secret(self, section: Section) -> dict[str, str]:
        """Return the secret fields that an entry names."""
        name = section.text("secret")
        if not name or self._given is None:
            return {}
        fields = self._given.get(name)
        if fields is SEALED:
            return {}
        if not isinstance(fields, dict) or not fields:
            self._problems.add_secret(
                f"{CREDENTIALS}.{name}",
                f"is not set, and {section.key('secret')} names it",
                f"`{hints.assign(f'{CREDENTIALS}.{name}.api_key', stack=self._problems.stack)}`, with the plugin's "
                "name of the field in place of api_key",
            )
            return {}
        return {str(part): str(value) for part, value in fields.items() if value is not SEALED}

    def _refuse_secrets(self, key: str, fields: Mapping[str, Any], fix: Callable[[str], str]) -> None:
        """Report the plain fields whose names are those of secrets; `fix` returns what to do about one."""
        for name, value in fields.items():
            if value and checks.names_secret(name):
                self._problems.add_secret(
                    f"{key}.{name}", "holds a secret, and settings are not encrypted", fix(name)
                )

    def _texts(self, key: str, fields: Mapping[str, Any]) -> dict[str, str]:
        """Return the plain fields as texts: Dify answers 500 to a number."""
        found = {}
        for name, value in fields.items():
            if checks.names_secret(name):
                continue
            if isinstance(value, bool):
                found[name] = str(value).lower()
            elif isinstance(value, str | int | float):
                found[name] = str(value)
            else:
                self._problems.add(f"{key}.{name}", value, "is not text or a number", "give one value")
        return found

    def _check_unique(self, credentials: Sequence[Credential]) -> None:
        seen: set[tuple[str, str, str]] = set()
        for one in credentials:
            what = (one.provider, one.model, one.type)
            if what in seen:
                self._problems.add(
                    self._section.key("models"),
                    f"{one.provider} {one.model}".strip(),
                    "has two credentials",
                    "list it once; models of the LLM proxy are added by proxy.enabled",
                )
            seen.add(what)

    def _defaults(self, known: Sequence[Credential], proxied: Sequence[Credential]) -> dict[str, Default]:
        """Return the default models: those that are set, else the first model of the proxy of each type."""
        found: dict[str, Default] = {}
        for one in proxied:
            found.setdefault(one.type, Default(provider=one.provider, model=one.model))
        key = self._section.key("defaults")
        for kind, value in self._section.mapping("defaults").items():
            if kind not in TYPES:
                self._problems.add(key, kind, "is not a type of models", f"use one of {', '.join(TYPES)}")
                continue
            default = self._default(f"{key}.{kind}", kind, value, known)
            if default:
                found[kind] = default
        return found

    def _default(self, key: str, kind: str, value: object, known: Sequence[Credential]) -> Default | None:
        if isinstance(value, dict) and set(value) == {"provider", "model"}:
            default = Default(provider=str(value["provider"]), model=str(value["model"]))
            self._check_provider(f"{key}.provider", default.provider)
            if not default.model:
                self._problems.add(
                    f"{key}.model", default.model, "is not a model", "name a model of the provider"
                )
            return default
        providers = [one.provider for one in known if (one.model, one.type) == (value, kind)]
        if len(providers) == 1:
            return Default(provider=providers[0], model=str(value))
        self._problems.add(
            key,
            value,
            "is not one model of this stack" if not providers else "is a model of several providers",
            "name a model that is served, or use {provider: author/plugin/provider, model: name}",
        )
        return None
