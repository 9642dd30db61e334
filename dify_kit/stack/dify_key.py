"""The key with which Dify calls the LLM proxy: made once, changed on request, kept in the encrypted settings."""

from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.stack import settings
from dify_kit.stack.changing import Change
from dify_kit.talk import say
from dify_kit.workspace.files import PROJECT
from infra import hints
from infra.settings.given import SEALED
from infra.settings.proxy_keys import DIFY_KEY, new_secret
from infra.settings.secrets import SHAPES

SETTING = f"{PROJECT}:{DIFY_KEY}"


def new() -> Change:
    """Return the change that stores a new key."""
    return Change(path=(DIFY_KEY,), value=new_secret(), secret=True)


def ensure(pulumi: Pulumi) -> None:
    """Make the key of a stack that has none, where its settings require one."""
    section = settings.section(pulumi.files, "modelProviders")
    proxy = section.section("proxy", section.defaults["proxy"])
    required = proxy.raw("enabled") is True and settings.section(pulumi.files, "llm").boolean("enabled")
    if required and SETTING not in pulumi.files.config():
        _store(pulumi, new_secret())
        say(f"made the key with which Dify of stack {pulumi.files.stack} calls the LLM proxy")


def begin(pulumi: Pulumi, *, overlap: bool) -> None:
    """Put a new key in front of the one in use; without `overlap` the old one is dropped.

    A change that no `up` has completed is continued: its new key stays the new one, and the key in use stays valid.
    """
    files = pulumi.files
    if not files.configured():
        raise KitError(
            f"stack {files.stack} does not exist on this machine (no {files.stored})",
            f"create it with `{hints.kit('init', files.stack)}`",
        )
    # Without resources no Dify has a key.
    known = _known(pulumi) if overlap and pulumi.state().urns else []
    if len(known) > 1:
        say("an earlier change of this key was not completed: continuing it")
        return
    _store(pulumi, " ".join([new_secret(), *known]))


def finish(pulumi: Pulumi) -> bool:
    """Drop the old key after a successful `up`; the next one puts it into effect. Return whether there was one."""
    known = _known(pulumi)
    if len(known) < 2:  # noqa: PLR2004  # the new one and the old one
        return False
    _store(pulumi, known[0])
    return True


def _known(pulumi: Pulumi) -> list[str]:
    """Return the stored keys, the newest first; none where they are missing or have another form. Raises KitError."""
    if SETTING not in pulumi.files.config():
        return []
    stored = settings.given(pulumi.files, decrypt=True).values.get(DIFY_KEY)
    if stored is SEALED:
        stored = pulumi.run("config", "get", SETTING).stdout.strip()
    if not isinstance(stored, str) or SHAPES[DIFY_KEY].problem(stored) is not None:
        return []
    return stored.split(" ")


def _store(pulumi: Pulumi, value: str) -> None:
    # By stdin: arguments are in the process list.
    pulumi.run("config", "set", "--secret", SETTING, stdin=value)
