"""How many cores the engine has: services that need one each to start are started in groups on fewer."""

from infra import engine

ENGINE_TIMEOUT_SECONDS = 15
# Where the engine does not report it: no order that costs time for nothing.
MANY = 64


def engine_cores() -> int:
    """Return the number of cores of the engine's machine, `MANY` when it does not answer."""
    import docker  # noqa: PLC0415  # the program needs the engine's API here and for its guards only
    import requests  # noqa: PLC0415

    try:
        found = engine.client(ENGINE_TIMEOUT_SECONDS).api.info().get("NCPU")
    except (engine.EngineChoiceError, docker.errors.DockerException, requests.RequestException):
        # The provider reports the cause in a moment.
        return MANY
    return int(found) if found else MANY
