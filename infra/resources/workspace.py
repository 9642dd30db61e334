"""What plugins and models of a workspace share: their routes, and Dify's answers while its plugin daemon starts."""

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from infra.resources.console_client import Console, ConsoleError, NotFoundError, UnavailableError

WORKSPACE = "/workspaces/current"
# Dify answers so while its plugin daemon is down, or a plugin in it has not started.
_STARTING = (
    "Failed to request plugin daemon",
    "no available node",
    "Request to Plugin Daemon Service failed",
)
_NO_PROVIDER = ("Provider ", " does not exist.")
_Found = TypeVar("_Found")


class NoProviderError(NotFoundError):
    """No installed plugin has the provider."""


def call(
    console: Console,
    method: str,
    path: str,
    body: Any = None,  # noqa: ANN401  # JSON
    *,
    secrets: Collection[str] = (),
    content: tuple[str, bytes] | None = None,
) -> dict[str, Any]:
    """Send a request to a route of the workspace. Raises UnavailableError for all that may pass by itself."""
    try:
        return console.call(method, f"{WORKSPACE}{path}", body, secrets=secrets, content=content)
    except (NotFoundError, UnavailableError):
        raise
    except ConsoleError as problem:
        text = str(problem)
        if any(sign in text for sign in _STARTING):
            raise UnavailableError(text) from None
        if all(part in text for part in _NO_PROVIDER):
            raise NoProviderError(text) from None
        raise


def patiently(action: Callable[[], _Found], *, seconds: float, what: str) -> _Found:
    """Do it, again while Dify or its plugin daemon does not process it. `action` must be repeatable.

    Raises UnavailableError with the last answer.
    """
    try:
        return Retrying(
            retry=retry_if_exception_type(UnavailableError),
            stop=stop_after_delay(seconds),
            wait=wait_exponential(multiplier=0.5, max=5),
        )(action)
    except RetryError as problem:
        last = problem.last_attempt.exception()
        raise UnavailableError(
            f"{what}: not processed within {seconds:.0f} s. A plugin that does not start, a stopped plugin daemon and "
            f"a refused value look alike here; the logs of plugin-daemon and api have the cause. Last: {last}"
        ) from None
