"""The LLM proxy for the nginx templates, and the private file with its keys, which no template reads."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import pulumi

from dify_gateway import scopes
from infra.catalogue import ports
from infra.catalogue.llm_presets import LONGEST_ANSWER
from infra.edge import errors as edge_errors
from infra.edge import llm_request, llm_tunnel
from infra.edge.limits import ConnectionZone, RateZone
from infra.edge.llm_tunnel import Tunnel
from infra.edge.paths import BODIES_DIRECTORY, USAGE_DIRECTORY
from infra.settings.llm import LITELLM, NGINX, Llm, Target, Upstream
from infra.settings.origins import DEFAULT_PORTS
from infra.settings.proxy_keys import ProxyKey
from infra.settings.rate_limits import MINUTE, Bucket, GroupLimits

# Relative to nginx.conf. The master process reads it (mode 0400) and passes it to njs.
SECRETS_FILE = "llm/secrets.json"
# The root certificates of the image; an upstream with its own CA has its own file.
PUBLIC_CAS = "/etc/ssl/certs/ca-certificates.crt"
# Longer than LiteLLM's own time-outs, so its error arrives.
LITELLM_GRACE_SECONDS = 15
# Usage of this many seconds is lost when the container is killed.
SAVE_SECONDS = 2
# Caller, model and five numbers take about 1 kB: room for 16,000 pairs a month.
COUNTERS_SIZE = "16m"
# By which a request that is over its caller's rate leaves the location of an upstream. No client receives it.
RATE_STATUS = 430
# What nginx sends to an upstream beside a body: the first message of TLS, or the header of a request.
KEPT_BYTES = 65536
# How long other upstreams of a model come first after one returned an empty response, or an error with status 200.
DOWN_SECONDS = 30
# Response headers that pages may read besides those of other routes: OpenAI's clients act on them.
EXPOSED_HEADERS = ("retry-after-ms", "x-should-retry")
MASTER = "litellm-master"
UPSTREAM_KEY = "$llm_key"


@dataclass(frozen=True, kw_only=True)
class EdgeUpstream:
    """An upstream as nginx reads it. `authority` is its Host header, `ca` the file with its root certificates.

    `tunnelled`: it is reached through the proxy of `dify:outbound`.
    """

    name: str
    scheme: str
    host: str
    port: int
    path: str
    ca: str
    timeout_seconds: int
    tunnelled: bool = False

    @property
    def authority(self) -> str:
        """The host, with the port unless it is the scheme's default."""
        return self.host if self.port == DEFAULT_PORTS[self.scheme] else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class CallerClass:
    """Callers with the same limits. `key` is the nginx variable to count each of them by."""

    number: int
    key: str
    rate: RateZone | None
    connections: ConnectionZone | None
    retry_seconds: int


@dataclass(frozen=True, kw_only=True)
class EdgeLlm:
    """The LLM proxy as the templates read it, as `edge.llm`.

    `tables` is JSON without secrets; `hidden` are the nginx variables with the keys to mask in responses.
    """

    upstreams: tuple[EdgeUpstream, ...]
    classes: tuple[CallerClass, ...]
    max_body_megabytes: int
    tables: str
    hidden: tuple[str, ...] = (UPSTREAM_KEY,)
    engine: str = NGINX
    tunnel: Tunnel | None = None
    port: int = ports.EDGE_LLM
    secrets_file: str = SECRETS_FILE
    save_seconds: int = SAVE_SECONDS
    counters_size: str = COUNTERS_SIZE
    down_seconds: int = DOWN_SECONDS
    rate_status: int = RATE_STATUS
    bodies_directory: str = BODIES_DIRECTORY
    exposed_headers: tuple[str, ...] = EXPOSED_HEADERS
    # The patterns by which nginx reads a body, and the values that njs gets, in the order of njs/usual.js.
    body_pattern: str = llm_request.pattern()
    body_values: str = "|".join(f"$llm_j_{name}" for name in llm_request.DECIDED)
    strings_pattern: str = llm_request.strings()
    # The bodies of errors by status and reason: of callers that are refused, and of a token without the scope.
    refusal_bodies: Mapping[str, str] = field(default_factory=edge_errors.key_bodies)
    scope_body: str = edge_errors.scope_body(scopes.LLM)
    scope_challenge: str = edge_errors.scope_challenge(scopes.LLM)

    def kept_bytes(self, upstream: EdgeUpstream) -> int:
        """Return the most bytes that nginx sends before an upstream's tunnel is open: without TLS a whole request."""
        body = self.max_body_megabytes * 1024 * 1024 if upstream.scheme == "http" else 0
        return body + KEPT_BYTES


def edge_llm(llm: Llm | None, *, suffix: str = "") -> EdgeLlm | None:
    """Return what the edge needs for the LLM proxy, None without it. `suffix` follows the names of services."""
    if llm is None:
        return None
    return EdgeLlm(
        upstreams=(_litellm(llm, suffix),)
        if llm.litellm
        else tuple(_upstream(one, llm) for one in llm.upstreams),
        engine=llm.engine,
        tunnel=llm_tunnel.tunnel(llm),
        hidden=_hidden_behind_litellm(llm) if llm.litellm else (UPSTREAM_KEY,),
        classes=tuple(_class(number, limits) for number, limits in enumerate(_limits(llm))),
        max_body_megabytes=llm.max_body_megabytes,
        tables=json.dumps(_tables(llm), indent=1),
    )


def public_files(llm: Llm | None) -> Mapping[str, str]:
    """Return the root certificates of upstreams with their own CA, by their path relative to nginx.conf."""
    if llm is None or llm.litellm:
        return MappingProxyType({})
    own = {_ca_file(one): one.ca for one in llm.upstreams if one.ca}
    return MappingProxyType({**own, **llm_tunnel.public_files(llm)})


def private_files(llm: Llm | None) -> Mapping[str, pulumi.Output[str]]:
    """Return the files that only nginx may read, by their path relative to nginx.conf."""
    if llm is None:
        return MappingProxyType({})
    callers, litellm = _callers(llm), llm.litellm is not None
    own = {one.name: one.key for one in llm.upstreams}
    # No upstream has this name: their names hold no "-".
    keys = pulumi.Output.all(**own, **({MASTER: llm.litellm.key} if llm.litellm else {}))
    text = keys.apply(lambda found: secrets_text(found, callers, litellm=litellm))
    return MappingProxyType({SECRETS_FILE: text, **llm_tunnel.private_files(llm)})


def hidden_files(llm: Llm | None) -> Mapping[str, str]:
    """Return the same files for display: without keys, and without the hashes of callers' keys."""
    if llm is None:
        return MappingProxyType({})
    keys = {one.name: f"<dify:llmKeys.{one.name}>" for one in llm.upstreams}
    if llm.litellm:
        keys[MASTER] = "<dify:litellmMasterKey>"
    text = secrets_text(keys, {}, litellm=llm.litellm is not None)
    return MappingProxyType({SECRETS_FILE: text, **llm_tunnel.hidden_files(llm)})


def secrets_text(keys: Mapping[str, str], callers: Mapping[str, Any], *, litellm: bool = False) -> str:
    """Return the text of the private file.

    `keys` are those of the upstreams by name, and LiteLLM's own as `MASTER`. The file holds the keys that nginx sends,
    and in `hidden` those that it masks besides: a response of LiteLLM may quote an upstream's, so every key is masked
    in it. They are words in one string, because an array that njs preloads has no methods. Callers are by the hash of
    their key.
    """
    sent = {LITELLM: keys[MASTER]} if litellm else dict(keys)
    hidden = " ".join(keys.values()) if litellm else ""
    return json.dumps({"keys": sent, "hidden": hidden, "callers": dict(callers)})


def _hidden_behind_litellm(llm: Llm) -> tuple[str, ...]:
    """Return a variable for each word of `hidden`: every upstream's key and LiteLLM's own."""
    return tuple(f"$llm_hidden_{number}" for number in range(len(llm.upstreams) + 1))


def _upstream(one: Upstream, llm: Llm) -> EdgeUpstream:
    outbound, proxy = llm.outbound, llm_tunnel.proxy_of(llm)
    shared = llm_tunnel.ROOTS_FILE if outbound and outbound.ca else PUBLIC_CAS
    return EdgeUpstream(
        name=one.name,
        scheme=one.scheme,
        host=one.host,
        port=one.port,
        path=one.path,
        ca=_ca_file(one) if one.ca else shared,
        timeout_seconds=one.timeout_seconds,
        tunnelled=proxy is not None and proxy.passes(one.host),
    )


def _litellm(llm: Llm, suffix: str) -> EdgeUpstream:
    """Return LiteLLM as nginx reads it: the only upstream of every model."""
    seconds = {one.name: one.timeout_seconds for one in llm.upstreams}
    served = [*llm.models.values(), *llm.embeddings.values()]
    longest = max(sum(seconds[one.upstream] for one in targets) for targets in served)
    return EdgeUpstream(
        name=LITELLM,
        scheme="http",
        host=f"{LITELLM}{suffix}",
        port=ports.LITELLM,
        path="/v1",
        ca=PUBLIC_CAS,
        timeout_seconds=longest + LITELLM_GRACE_SECONDS,
    )


def _ca_file(one: Upstream) -> str:
    return f"llm/{one.name}.pem"


def _limits(llm: Llm) -> tuple[GroupLimits, ...]:
    """Return every set of limits that a caller may have, the stack's own first."""
    return tuple(dict.fromkeys([llm.limits, *(_limits_of(key, llm) for key in llm.keys)]))


def _limits_of(key: ProxyKey, llm: Llm) -> GroupLimits:
    rate, concurrent = llm.limits.rate, llm.limits.concurrent
    if key.requests_per_minute is not None:
        count = key.requests_per_minute
        rate = Bucket(requests=count, seconds=MINUTE, burst=count) if count else None
    return GroupLimits(rate=rate, concurrent=concurrent if key.concurrent is None else key.concurrent)


def _class(number: int, limits: GroupLimits) -> CallerClass:
    key = f"$llm_limited_{number}"
    bucket, most = limits.rate, limits.concurrent
    return CallerClass(
        number=number,
        key=key,
        rate=RateZone(name=f"llm_rate_{number}", key=key, rate=bucket.rate, burst=bucket.burst - 1)
        if bucket
        else None,
        connections=ConnectionZone(name=f"llm_connections_{number}", key=key, most=most) if most else None,
        retry_seconds=limits.retry_seconds,
    )


def _callers(llm: Llm) -> dict[str, Any]:
    classes = list(_limits(llm))
    return {
        key.sha256: {
            # The prefix keeps the name apart from callers of other kinds, such as OAuth clients.
            "name": f"key:{key.name}",
            "expires": key.expiry,
            "class": classes.index(_limits_of(key, llm)),
            "budget": llm.monthly_budget if key.budget is None else key.budget,
            # Words in one string: an array that njs preloads has no methods.
            "models": " ".join(key.models),
            "internal": key.internal,
        }
        for key in llm.keys
    }


def _tables(llm: Llm) -> dict[str, Any]:
    served = {*llm.models, *llm.embeddings}
    return {
        "engine": llm.engine,
        "chat": _targets(llm, llm.models),
        "embeddings": _targets(llm, llm.embeddings),
        "prices": {
            model: {"input": price.input, "output": price.output}
            for model, price in llm.prices.items()
            if model in served
        },
        # The most tokens in a response of each model.
        "longest": {
            model: llm.prices[model].longest if model in llm.prices else LONGEST_ANSWER
            for model in llm.models
        },
        "decided": dict(llm_request.DECIDED),
        # Words in one string: an array that njs preloads has no methods.
        "refused": " ".join(llm_request.REFUSED),
        "alike": llm_request.alike(),
        "option": llm_request.OPTION,
        # For callers without a proxy key.
        "class": 0,
        "budget": llm.monthly_budget,
        "scope": scopes.LLM,
        "internal_port": str(ports.EDGE_LLM),
        "state": USAGE_DIRECTORY,
        "save_seconds": SAVE_SECONDS,
        # Changed keys or callers are a changed configuration: their digest stands for them.
        "digest": _digest(
            [one.key_digest for one in (*llm.upstreams, *((llm.litellm,) if llm.litellm else ()))],
            _callers(llm),
        ),
    }


def _targets(llm: Llm, models: Mapping[str, Sequence[Target]]) -> dict[str, Any]:
    if llm.litellm:
        # LiteLLM chooses among the upstreams, by the model's name that callers use.
        return {model: [asdict(Target(upstream=LITELLM, model=model))] for model in models}
    return {model: [asdict(target) for target in targets] for model, targets in models.items()}


def _digest(keys: Sequence[str], callers: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([list(keys), callers], sort_keys=True).encode()).hexdigest()[:12]
