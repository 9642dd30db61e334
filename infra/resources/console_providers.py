"""What Pulumi does with Dify's admin, apps and API keys: create, read, diff, update, delete.

The providers are pickled by reference: this module must keep its name as long as stacks exist. They store the
api container's name, not its id, so a recreated api changes nothing here. How each of them lives is told in
docs/concepts/apps-as-code.md.
"""

from collections.abc import Callable
from typing import Any

import pulumi
from pulumi import dynamic

from infra.resources.console_client import (
    WORKFLOW_MODES,
    Console,
    ConsoleError,
    NotClaimedError,
    NotFoundError,
    UnavailableError,
)
from infra.resources.console_session import LoginError, LoginRefusedError
from infra.resources.console_transport import ContainerMissingError, ContainerTransport, TransportError

# Stands in the state for a password that Dify refused: `up` then shows a change and tries the configured one.
REFUSED = ""
# How the console is reached: a change is written down, and concerns nothing that Dify stores.
ACCESS = frozenset({"container", "console_url", "email", "password"})
# A look at what exists must not hold up the repair of what is missing.
READ_PATIENCE, READ_SECONDS = 3.0, 15
AWAY = (ContainerMissingError, TransportError, UnavailableError, LoginError)


def marker(app_name: str) -> str:
    """Return the end of a description by which an app is found again, without any state."""
    return f"(managed by dify-kit: {app_name})"


def _console(props: dict[str, Any]) -> Console:
    return Console(
        transport=ContainerTransport(props["container"]),
        url=props["console_url"],
        email=props["email"],
        password=props["password"],
    )


def _hasty_console(props: dict[str, Any]) -> Console:
    return Console(
        transport=ContainerTransport(props["container"]),
        url=props["console_url"],
        email=props["email"],
        password=props["password"],
        patience=READ_PATIENCE,
        seconds=READ_SECONDS,
    )


def _diff(
    olds: dict[str, Any], news: dict[str, Any], *, updates: frozenset[str], replaces: frozenset[str]
) -> dynamic.DiffResult:
    changed = {key for key in updates | replaces if olds.get(key) != news.get(key)}
    return dynamic.DiffResult(
        changes=bool(changed), replaces=sorted(changed & replaces), delete_before_replace=True
    )


def _read(
    what: str, id_: str, props: dict[str, Any], look: Callable[[], dict[str, Any]]
) -> dynamic.ReadResult:
    """Report an object as `look` sees it: gone when Dify does not have it, unchanged when nobody can say.

    An api that is away must not fail a refresh: the `up` that follows is what brings it back.
    """
    try:
        return dynamic.ReadResult(id_, look())
    except (NotFoundError, NotClaimedError):
        return dynamic.ReadResult("", {})
    except AWAY as problem:
        pulumi.log.warn(f"{what}: taken as unchanged, as Dify could not be asked: {problem}")
        return dynamic.ReadResult(id_, props)


def _delete(what: str, action: Callable[[], None]) -> None:
    """Delete; say what stays when Dify is away, as nothing else may hold up a destroy."""
    try:
        action()
    except (NotFoundError, NotClaimedError):
        return
    except (*AWAY, ConsoleError) as problem:
        pulumi.log.warn(f"{what} stays in Dify's database: {problem}")


class AdminProvider(dynamic.ResourceProvider):
    """Claims the instance; adopts it when it is claimed with the same credentials."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Claim or adopt. Raises LoginError when somebody else has claimed the instance."""
        console = _console(props)
        console.claim(props["admin_name"], props["init_password"])
        console.sign_in()
        return dynamic.CreateResult(props["email"], props)

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the admin gone when nobody has claimed the instance, changed when Dify refuses it."""

        def look() -> dict[str, Any]:
            console = _hasty_console(props)
            if not console.setup_finished():
                raise NotClaimedError(f"nobody has claimed the instance at {props['console_url']}")
            if props["password"] == REFUSED:
                return props
            try:
                console.sign_in()
            except LoginRefusedError as problem:
                pulumi.log.warn(f"admin: {problem}")
                return {**props, "password": REFUSED}
            return props

        return _read("admin", id_, props, look)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Everything changes in place: the instance stays the same."""
        updates = ACCESS | {"admin_name", "init_password"}
        return _diff(_olds, _news, updates=updates, replaces=frozenset())

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.UpdateResult:
        """Change password and name in Dify; take over what was changed there already."""
        console = _console(_news)
        if _olds["email"] != _news["email"]:
            self._adopt_email(_olds, _news, console)
        elif _olds["password"] != _news["password"]:
            self._change_password(_olds, _news, console)
        if _olds["admin_name"] != _news["admin_name"]:
            console.rename(_news["admin_name"])
        return dynamic.UpdateResult(_news)

    @staticmethod
    def _adopt_email(olds: dict[str, Any], news: dict[str, Any], console: Console) -> None:
        try:
            console.sign_in()
        except LoginError as problem:
            raise ConsoleError(
                f"dify:adminEmail: {news['email']}: the admin is {olds['email']}, and Dify changes an e-mail "
                "only with a code that it mails. Change it in the console first and run this again, or set "
                f"dify:adminEmail back to {olds['email']}. Signing in failed: {problem}"
            ) from None

    @staticmethod
    def _change_password(olds: dict[str, Any], news: dict[str, Any], console: Console) -> None:
        if olds["password"] == REFUSED:
            console.sign_in()
            return
        try:
            _console({**news, "password": olds["password"]}).change_password(news["password"])
        except LoginRefusedError:
            # Changed by hand, or by a run that was killed before it could remember.
            console.sign_in()

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Nothing: an instance cannot be unclaimed, and its data may outlive the stack."""
        pulumi.log.info(f"the account {props['email']} stays in Dify's database, if the volumes stay")


class AppProvider(dynamic.ResourceProvider):
    """An app, described by its DSL."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Import the app; one that is there from before is found by its description, and used again."""
        console = _console(props)
        found = console.find_app(marker(props["app_name"]), props["mode"])
        if found and props["mode"] not in WORKFLOW_MODES:
            pulumi.log.warn(f"app {props['app_name']}: found again as {found}; its content was not compared")
            return dynamic.CreateResult(found, props)
        return dynamic.CreateResult(console.import_app(props["dsl"], props["mode"], found), props)

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the app gone when Dify does not have it."""

        def look() -> dict[str, Any]:
            _hasty_console(props).app(id_)
            return props

        return _read(f"app {props['app_name']}", id_, props, look)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Import again when the DSL changed; the app keeps its id, its keys and its conversations."""
        return _diff(
            _olds, _news, updates=ACCESS | {"digest", "keep"}, replaces=frozenset({"app_name", "mode"})
        )

    def update(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Import the new DSL over the app."""
        if olds["digest"] != news["digest"]:
            if news["mode"] not in WORKFLOW_MODES:
                raise ConsoleError(
                    f"app {news['app_name']}: its DSL changed, and Dify imports over apps of the modes "
                    f"{', '.join(sorted(WORKFLOW_MODES))} only; this one is {news['mode']}. Change it in the "
                    "console and set the file back, or give the file another name: then a new app is made, "
                    "and this one stays in Dify without a key"
                )
            _console(news).import_app(news["dsl"], news["mode"], id_)
        return dynamic.UpdateResult(news)

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Keep the app unless told otherwise: it holds conversations, and a later `up` finds it again."""
        what = f"app {props['app_name']} ({id_})"
        if props.get("keep", True):
            pulumi.log.info(f"{what} stays in Dify's database with its conversations, if the volumes stay")
            return
        _delete(what, lambda: _hasty_console(props).delete_app(id_))


class AppKeyProvider(dynamic.ResourceProvider):
    """An API key of an app."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Make a key, in place of one that this resource made before and nobody remembers."""
        key_id, key, unnoted = _console(props).create_key(props["app_id"], props["owner"])
        if unnoted:
            pulumi.log.warn(f"API key {key_id}: not noted on the storage volume ({unnoted})")
        return dynamic.CreateResult(key_id, {**props, "key": key})

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the key gone when Dify does not list it."""

        def look() -> dict[str, Any]:
            if id_ not in _hasty_console(props).keys(props["app_id"]):
                raise NotFoundError(f"API key {id_}")
            return props

        return _read(f"API key {id_}", id_, props, look)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Another app needs another key."""
        return _diff(_olds, _news, updates=ACCESS, replaces=frozenset({"app_id"}))

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Write down how the console is reached now."""
        return dynamic.UpdateResult({**news, "key": olds["key"]})

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Delete the key: from now on Dify refuses it."""
        _delete(f"API key {id_}", lambda: _hasty_console(props).delete_key(props["app_id"], id_))


class DatasetKeyProvider(dynamic.ResourceProvider):
    """A key of the knowledge API."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Make a key, in place of one that this resource made before and nobody remembers."""
        key_id, key, unnoted = _console(props).create_dataset_key(props["owner"])
        if unnoted:
            pulumi.log.warn(f"key {key_id} of the knowledge API: not noted on the storage volume ({unnoted})")
        return dynamic.CreateResult(key_id, {**props, "key": key})

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the key gone when Dify does not list it."""

        def look() -> dict[str, Any]:
            if id_ not in _hasty_console(props).dataset_keys():
                raise NotFoundError(f"key {id_} of the knowledge API")
            return props

        return _read(f"key {id_} of the knowledge API", id_, props, look)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Nothing asks for another key."""
        return _diff(_olds, _news, updates=ACCESS, replaces=frozenset())

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Write down how the console is reached now."""
        return dynamic.UpdateResult({**news, "key": olds["key"]})

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Delete the key: from now on Dify refuses it."""
        _delete(f"key {id_} of the knowledge API", lambda: _hasty_console(props).delete_dataset_key(id_))
