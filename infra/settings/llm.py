"""The settings of the LLM proxy: `dify:llm`, `dify:llmKeys`, and the keys issued to callers."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from infra import hints
from infra.catalogue.llm_presets import LONGEST_ANSWER, PRESETS, PRICES, Price, key_problem
from infra.settings import proxy_keys
from infra.settings.given import SEALED
from infra.settings.llm_upstreams import MAX_TIMEOUT, UpstreamAddress, read_upstreams
from infra.settings.outbound import Outbound
from infra.settings.proxy_keys import ProxyKey, ProxyKeyError
from infra.settings.rate_limits import GroupLimits, read_group
from infra.settings.reader import Section
from infra.settings.stack_secrets import SecretReader

if TYPE_CHECKING:
    import pulumi

KEYS = "llmKeys"
MASTER_KEY = "litellmMasterKey"
NGINX, LITELLM = ENGINES = ("nginx", "litellm")
MAX_BODY_MEGABYTES = 50
MAX_ANSWER_TOKENS = 10_000_000
MAX_DOLLARS = 1_000_000
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Upstream(UpstreamAddress):
    """An upstream with its key. `key_digest` changes with the key and does not disclose it."""

    key: "pulumi.Output[str]"
    key_digest: str


@dataclass(frozen=True, kw_only=True)
class Litellm:
    """LiteLLM's proxy as the engine. `key_digest` changes with the key and does not disclose it."""

    key: "pulumi.Output[str]"
    key_digest: str


@dataclass(frozen=True, kw_only=True)
class Target:
    """An upstream that serves a model, and what it calls that model."""

    upstream: str
    model: str


@dataclass(frozen=True, kw_only=True)
class Llm:
    """The LLM proxy, fully checked. Each model has its targets in the order in which they are tried.

    `monthly_budget` in US dollars for each caller, 0 for none. `keys` are those issued, revoked ones left out.
    `litellm` is None where nginx itself is the engine. `outbound` is how upstreams are reached, as the whole stack's.
    """

    upstreams: tuple[Upstream, ...]
    models: Mapping[str, tuple[Target, ...]]
    embeddings: Mapping[str, tuple[Target, ...]]
    max_body_megabytes: int
    limits: GroupLimits
    monthly_budget: float
    prices: Mapping[str, Price]
    keys: tuple[ProxyKey, ...] = field(default=())
    litellm: Litellm | None = None
    outbound: Outbound | None = None

    @property
    def engine(self) -> str:
        """The engine that chooses an upstream and sends the request."""
        return LITELLM if self.litellm else NGINX


class LlmReader:
    """Reads `dify:llm`. `issued` reads the keys issued to callers.

    `addresses` are the upstreams that were read, also of a proxy that is off: a wrong value is an error where it is
    given.
    """

    def __init__(
        self,
        section: Section,
        *,
        secrets: SecretReader,
        issued: Callable[[], tuple[ProxyKey, ...]],
        outbound: Outbound | None = None,
    ) -> None:
        self._section = section
        self._problems = section.problems
        self._secrets = secrets
        self._issued = issued
        self._outbound = outbound
        self._keys: Mapping[str, Any] | None = {}
        self.addresses: tuple[UpstreamAddress, ...] = ()

    def read(self) -> Llm | None:
        """Return the settings, None when the proxy is off; only to be used when no problem was reported."""
        section, names = self._section, tuple(self._section.mapping("upstreams"))
        on = section.boolean("enabled")
        self.addresses = read_upstreams(section)
        engine = section.choice("engine", ENGINES)
        # Of a proxy that is off, each value is checked by itself: it may be set up step by step.
        models, embeddings = (self._served(part, names if on else None) for part in ("models", "embeddings"))
        limits = read_group(section.section("limits", section.defaults["limits"]), 0)
        megabytes = section.integer("maxBodyMegabytes", 1, MAX_BODY_MEGABYTES)
        budget = section.number("monthlyBudget", 0, MAX_DOLLARS)
        prices = self._prices()
        if not on:
            return None
        if not self.addresses:
            self._problems.add("llm.upstreams", "{}", "no upstream", "add one, such as {holysheep: {}}")
        self._keys = self._secrets.by_name(KEYS)
        upstreams = tuple(map(self._with_key, self.addresses))
        for unknown in sorted(set(self._keys or ()) - set(names)):
            self._problems.add_secret(
                f"{KEYS}.{unknown}",
                "llm.upstreams has no such upstream",
                f"`{hints.kit('unset', f'{KEYS}.{unknown}', stack=self._problems.stack)}` removes it; "
                f"{hints.nearest(unknown, names)}",
            )
        if not models and not embeddings:
            self._problems.add("llm.models", "{}", "no model is served", "list models with their upstreams")
        for model in sorted(set(models) & set(embeddings)):
            self._problems.add("llm.embeddings", model, "is in llm.models too", "leave it in one of them")
        served = [*models, *embeddings]
        self._check_priced(budget, served, prices)
        keys = self._issued_keys(served, budget, prices)
        return Llm(
            upstreams=upstreams,
            models=models,
            embeddings=embeddings,
            max_body_megabytes=megabytes,
            limits=limits,
            monthly_budget=budget,
            prices=prices,
            keys=keys,
            litellm=self._litellm(upstreams, [*models.values(), *embeddings.values()])
            if engine == LITELLM
            else None,
            outbound=self._outbound,
        )

    def _litellm(self, upstreams: Sequence[Upstream], served: Sequence[Sequence[Target]]) -> Litellm:
        """Return what LiteLLM's proxy needs."""
        # nginx has to wait for LiteLLM as long as that may wait for one upstream after another.
        seconds = {one.name: one.timeout_seconds for one in upstreams}
        longest = max((sum(seconds.get(one.upstream, 0) for one in targets) for targets in served), default=0)
        if longest > MAX_TIMEOUT:
            self._problems.add(
                self._section.key("upstreams"),
                f"{longest} s",
                "is how long LiteLLM may try the upstreams of one model",
                f"let their timeoutSeconds add up to at most {MAX_TIMEOUT}",
            )
        for one in upstreams:
            if one.host == LITELLM:
                self._problems.add(
                    f"{self._section.key('upstreams')}.{one.name}.baseUrl",
                    one.base_url,
                    "is the stack's own LiteLLM, which would call itself",
                    "name the upstream of LiteLLM, or set llm.engine to nginx for a LiteLLM of your own",
                )
        key = self._secrets.text(MASTER_KEY, required=True)
        return Litellm(
            key=self._secrets.conceal(key),
            key_digest=hashlib.sha256(f"litellm {key}".encode()).hexdigest()[:12],
        )

    def _with_key(self, address: UpstreamAddress) -> Upstream:
        key = self._key(address.name, address.preset)
        return Upstream(
            **asdict(address),
            key=self._secrets.conceal(key),
            key_digest=hashlib.sha256(f"{address.name} {key}".encode()).hexdigest()[:12],
        )

    def _key(self, upstream: str, preset: str) -> str:
        """Return an upstream's key; empty for one that is not set, or sealed."""
        key = SEALED if self._keys is None else self._keys.get(upstream)
        if key is SEALED:
            return ""
        known = PRESETS[preset]
        if not isinstance(key, str) or not key:
            where = f"; a key is made at {known.register}" if known.register else ""
            self._problems.add_secret(
                f"{KEYS}.{upstream}",
                f"the key of {upstream} is not set",
                f"put it into {known.variable} and run `{self._set_key(upstream)}`{where}",
            )
            return ""
        if problem := key_problem(preset, key):
            self._problems.add_secret(
                f"{KEYS}.{upstream}", problem, f"run `{self._set_key(upstream)}` with the right one"
            )
        return key

    def _set_key(self, upstream: str) -> str:
        return hints.kit("keys", "set", upstream, stack=self._problems.stack)

    def _served(self, part: str, upstreams: Sequence[str] | None) -> dict[str, tuple[Target, ...]]:
        """Return the targets of each model; with `upstreams`, those that have other ones are reported."""
        found = {}
        for model, value in self._section.mapping(part).items():
            key = self._section.key(part)
            if not _MODEL.fullmatch(model):
                self._problems.add(key, model, "is not a model's name", "use the name that callers send")
                continue
            targets = [value] if isinstance(value, str) else value
            if not isinstance(targets, list) or not targets or not all(isinstance(t, str) for t in targets):
                self._problems.add(
                    f"{key}.{model}",
                    value,
                    "is not a list of upstreams",
                    "use [holysheep], the first choice first",
                )
                continue
            found[model] = tuple(self._target(f"{key}.{model}", model, one, upstreams) for one in targets)
            if len({target.upstream for target in found[model]}) < len(targets):
                self._problems.add(f"{key}.{model}", value, "an upstream is listed twice", "list it once")
        return found

    def _target(self, key: str, model: str, text: str, upstreams: Sequence[str] | None) -> Target:
        upstream, _, name = text.partition(":")
        if upstreams is not None and upstream not in upstreams:
            self._problems.add(
                key, text, "llm.upstreams has no such upstream", hints.nearest(text, upstreams)
            )
        if name and not _MODEL.fullmatch(name):
            self._problems.add(
                key, text, "has no model's name after the ':'", "use <upstream>:<its name of the model>"
            )
        return Target(upstream=upstream, model=name or model)

    def _prices(self) -> dict[str, Price]:
        found = dict(PRICES)
        for model, value in self._section.mapping("prices").items():
            key = f"{self._section.key('prices')}.{model}"
            if not isinstance(value, dict):
                self._problems.add(
                    key, value, "not an object", "use {input: 2, output: 8}, dollars a million"
                )
                continue
            one = Section(
                self._problems,
                value,
                {
                    "input": None,
                    "output": 0,
                    "longest": found[model].longest if model in found else LONGEST_ANSWER,
                },
                f"{key}.",
            )
            one.refuse_unknown()
            found[model] = Price(
                input=one.number("input", 0, MAX_DOLLARS),
                output=one.number("output", 0, MAX_DOLLARS),
                longest=one.integer("longest", 1, MAX_ANSWER_TOKENS),
            )
        return found

    def _issued_keys(
        self, served: Sequence[str], budget: float, prices: Mapping[str, Price]
    ) -> tuple[ProxyKey, ...]:
        """Return the keys that are not revoked. One that has become invalid is reported, and stops no deployment."""
        try:
            issued = tuple(key for key in self._issued() if not key.revoked)
        except ProxyKeyError as problem:
            self._problems.lines.append(str(problem))
            return ()
        fitted = [proxy_keys.fit(key, served, prices, budget) for key in issued]
        for _, warnings in fitted:
            self._problems.warnings += warnings
        return tuple(key for key, _ in fitted if key)

    def _check_priced(self, budget: float, models: Sequence[str], prices: Mapping[str, Price]) -> None:
        """Report models that the budget of every caller would not count, because they have no price."""
        if not budget:
            return
        for model in models:
            if model not in prices:
                self._problems.add(
                    self._section.key("prices"),
                    model,
                    "has no price, and there is a budget",
                    f"set llm.prices.{model} to {{input: ..., output: ...}}, dollars a million tokens",
                )
