"""LiteLLM's configuration: rendered from the settings of the LLM proxy, with the keys of the upstreams in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi

from infra.jinja import render
from infra.services.litellm import CONFIG, ROOTS
from infra.settings.llm import Litellm, Llm, Target, Upstream

TEMPLATE = "litellm/config.yaml.j2"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One way to a model in LiteLLM's terms. `name` is what requests name, `model` the name at the upstream."""

    name: str
    model: str
    base_url: str
    key: str
    timeout_seconds: int


@dataclass(frozen=True, kw_only=True)
class LitellmContext:
    """What the template reads, as `litellm`. `fallbacks` maps a name to those that are tried after it, in order."""

    deployments: tuple[Deployment, ...]
    fallbacks: Mapping[str, tuple[str, ...]]
    master_key: str


def context(llm: Llm, keys: Mapping[str, str], master_key: str) -> LitellmContext:
    """Derive LiteLLM's deployments from the settings. `keys` are those of the upstreams, by name."""
    upstreams = {one.name: one for one in llm.upstreams}
    served = {**llm.models, **llm.embeddings}
    return LitellmContext(
        deployments=tuple(
            _deployment(name, target, upstreams[target.upstream], keys)
            for model, targets in served.items()
            for name, target in zip(_names(model, targets), targets, strict=True)
        ),
        fallbacks={
            model: tuple(_names(model, targets)[1:]) for model, targets in served.items() if len(targets) > 1
        },
        master_key=master_key,
    )


def files(llm: Llm, own: Litellm, overrides: Path | None) -> pulumi.Output[dict[str, str]]:
    """Return the files of a release by their names. The keys of the upstreams are in them: a secret."""
    values = pulumi.Output.all(master=own.key, **{f"key {one.name}": one.key for one in llm.upstreams})

    def written(secrets: Mapping[str, str]) -> dict[str, str]:
        keys = {one.name: secrets[f"key {one.name}"] for one in llm.upstreams}
        return texts(llm, keys, secrets["master"], overrides)

    return pulumi.Output.secret(values.apply(written))


def hidden_files(llm: Llm, overrides: Path | None) -> dict[str, str]:
    """Return the same files for reading, without keys."""
    keys = {one.name: f"<dify:llmKeys.{one.name}>" for one in llm.upstreams}
    return texts(llm, keys, "<dify:litellmMasterKey>", overrides)


def texts(llm: Llm, keys: Mapping[str, str], master_key: str, overrides: Path | None) -> dict[str, str]:
    """Render the files of a release. Raises RenderError."""
    shared = llm.outbound.ca if llm.outbound else ""
    roots = "".join(dict.fromkeys(ca for ca in (*(one.ca for one in llm.upstreams), shared) if ca))
    return {
        CONFIG: render(TEMPLATE, {"litellm": context(llm, keys, master_key)}, overrides),
        ROOTS: roots,
    }


def _names(model: str, targets: Sequence[Target]) -> list[str]:
    """Return a name of LiteLLM's for each target: the model's own, then some that no caller can use."""
    return [model, *(f"{model}#{number}" for number in range(2, len(targets) + 1))]


def _deployment(name: str, target: Target, upstream: Upstream, keys: Mapping[str, str]) -> Deployment:
    return Deployment(
        name=name,
        model=target.model,
        base_url=upstream.base_url,
        key=keys[upstream.name],
        timeout_seconds=upstream.timeout_seconds,
    )
