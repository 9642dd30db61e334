"""What a key issued to a caller of the LLM proxy needs: a proxy that is on, models that it serves; and its limits."""

from collections.abc import Sequence

from dify_kit.errors import KitError, UsageError
from dify_kit.stack import settings
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.catalogue.checks import closest
from infra.settings import proxy_keys


def refuse_unserved(files: StackFiles, models: Sequence[str]) -> None:
    """Raise KitError when the stack's proxy is off; UsageError when it does not serve one of the models."""
    llm = settings.section(files, "llm")
    enabled, served = llm.boolean("enabled"), [*llm.mapping("models"), *llm.mapping("embeddings")]
    settings.require(llm)
    if not enabled:
        command = hints.assign("llm.enabled", "true", stack=files.stack)
        raise KitError(f"the LLM proxy of stack {files.stack} is off: a key would open nothing", command)
    for model in models:
        if model not in served:
            near = closest(model, served)
            known = f"did you mean {near}? " if near else ""
            raise UsageError(
                f"--model {model}: dify:llm.models has no such model",
                f"{known}served: {', '.join(served) or 'none'}",
            )


def warnings(files: StackFiles, name: str) -> list[str]:
    """Return what the settings do not let a caller's key do, in the words of a deployment's warnings."""
    return [line for line in settings.read(files).warnings if line.startswith(f"proxy key {name}: ")]


def have_keys(files: StackFiles) -> bool:
    """Whether a caller has a key that is not revoked; not where their file cannot be read."""
    try:
        known = proxy_keys.read(proxy_keys.file_of(files.config_file, files.stack))
    except proxy_keys.ProxyKeyError:
        return False
    return any(not key.revoked for key in known)


def limits_of(key: proxy_keys.ProxyKey) -> str:
    """Return a key's own limits in words; for what it does not limit, dify:llm counts."""
    limits = []
    if key.budget is not None:
        limits.append(f"${key.budget:g} a month" if key.budget else "no budget")
    if key.requests_per_minute is not None:
        limits.append(f"{key.requests_per_minute or 'any'} requests a minute")
    if key.concurrent is not None:
        limits.append(f"{key.concurrent or 'any'} at a time")
    if key.models:
        limits.append(f"only {', '.join(key.models)}")
    if key.internal:
        limits.append("inside the stack only")
    return "; ".join(limits) or "limits of dify:llm"
