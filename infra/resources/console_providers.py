"""What Pulumi does with Dify's admin, apps and API keys: create, read, diff, update, delete.

The providers are pickled by reference: this module must keep its name as long as stacks exist. They store the
api container's name, not its id, so a recreated api changes nothing here. The life of each of them:
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

# In the state it replaces a password that Dify refused: `up` then shows a change and tries the configured one.
REFUSED = ""
# How the console is reached: a change is stored, and changes nothing in Dify.
ACCESS = frozenset({"container", "console_url", "email", "password"})
# Reading what exists must not delay the repair of what is missing.
READ_PATIENCE, READ_SECONDS = 3.0, 15
AWAY = (ContainerMissingError, TransportError, UnavailableError, LoginError)


def marker(app_name: str) -> str:
    """Return the end of a description by which an app is found again, without any state."""
    return f"(managed by dify-kit: {app_name})"


def patient_console(props: dict[str, Any], **limits: Any) -> Console:  # noqa: ANN401  # fields of Console
    """Return the console of a resource; `limits` are its times."""
    return Console(
        transport=ContainerTransport(props["container"]),
        url=props["console_url"],
        email=props["email"],
        password=props["password"],
        **limits,
    )


def hasty_console(props: dict[str, Any]) -> Console:
    """Return the console of a resource, for reading and for a destroy: neither waits long."""
    return patient_console(props, patience=READ_PATIENCE, seconds=READ_SECONDS)


def compared(
    olds: dict[str, Any], news: dict[str, Any], *, updates: frozenset[str], replaces: frozenset[str]
) -> dynamic.DiffResult:
    """Return which of the properties changed."""
    changed = {key for key in updates | replaces if olds.get(key) != news.get(key)}
    return dynamic.DiffResult(
        changes=bool(changed), replaces=sorted(changed & replaces), delete_before_replace=True
    )


def observed(
    what: str, id_: str, props: dict[str, Any], look: Callable[[], dict[str, Any]]
) -> dynamic.ReadResult:
    """Report an object as `look` sees it: gone when Dify does not have it, unchanged when Dify does not answer.

    An api that is down must not fail a refresh: the `up` that follows repairs it.
    """
    try:
        return dynamic.ReadResult(id_, look())
    except (NotFoundError, NotClaimedError):
        return dynamic.ReadResult("", {})
    except AWAY as problem:
        pulumi.log.warn(f"{what}: assumed to be unchanged, as Dify does not answer: {problem}")
        return dynamic.ReadResult(id_, props)


def delete_or_tell(what: str, action: Callable[[], None]) -> None:
    """Delete; report what stays when Dify does not answer, since a destroy must go on."""
    try:
        action()
    except (NotFoundError, NotClaimedError):
        return
    except (*AWAY, ConsoleError) as problem:
        pulumi.log.warn(f"{what} stays in Dify's database: {problem}")


class AdminProvider(dynamic.ResourceProvider):
    """Claims the instance; adopts it when it is claimed with the same credentials."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Claim or adopt. Raises LoginError when the instance is claimed with other credentials."""
        console = patient_console(props)
        console.claim(props["admin_name"], props["init_password"])
        console.sign_in()
        return dynamic.CreateResult(props["email"], props)

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the admin gone when the instance is unclaimed, changed when Dify refuses the password."""

        def look() -> dict[str, Any]:
            console = hasty_console(props)
            if not console.setup_finished():
                raise NotClaimedError(f"the instance at {props['console_url']} is not claimed")
            if props["password"] == REFUSED:
                return props
            try:
                console.sign_in()
            except LoginRefusedError as problem:
                pulumi.log.warn(f"admin: {problem}")
                return {**props, "password": REFUSED}
            return props

        return observed("admin", id_, props, look)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Everything changes in place."""
        updates = ACCESS | {"admin_name", "init_password"}
        return compared(_olds, _news, updates=updates, replaces=frozenset())

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.UpdateResult:
        """Change password and name in Dify; adopt what was changed there already."""
        console = patient_console(_news)
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
            patient_console({**news, "password": olds["password"]}).change_password(news["password"])
        except LoginRefusedError:
            # Changed by hand, or by a run that was killed before it could store the new one.
            console.sign_in()

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Do nothing: an instance cannot be unclaimed, and its data may outlive the stack."""
        pulumi.log.info(f"the account {props['email']} stays in Dify's database, if the volumes stay")


class AppProvider(dynamic.ResourceProvider):
    """An app, described by its DSL."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Import the app; an existing one is found by its description, and used again."""
        console = patient_console(props)
        found = console.find_app(marker(props["app_name"]), props["mode"])
        if found and props["mode"] not in WORKFLOW_MODES:
            pulumi.log.warn(f"app {props['app_name']}: found again as {found}; its content was not compared")
            return dynamic.CreateResult(found, props)
        return dynamic.CreateResult(console.import_app(props["dsl"], props["mode"], found), props)

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the app gone when Dify does not have it."""

        def look() -> dict[str, Any]:
            hasty_console(props).app(id_)
            return props

        return observed(f"app {props['app_name']}", id_, props, look)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Import again when the DSL changed; the app keeps its id, its keys and its conversations."""
        return compared(
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
            patient_console(news).import_app(news["dsl"], news["mode"], id_)
        return dynamic.UpdateResult(news)

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Keep the app unless `keep` is false: it holds conversations, and a later `up` finds it again."""
        what = f"app {props['app_name']} ({id_})"
        if props.get("keep", True):
            pulumi.log.info(f"{what} stays in Dify's database with its conversations, if the volumes stay")
            return
        delete_or_tell(what, lambda: hasty_console(props).delete_app(id_))


class KeyProvider(dynamic.ResourceProvider):
    """A key that Dify makes. Subclasses say of which list of keys it is one."""

    replaces: frozenset[str] = frozenset()

    def name(self, id_: str) -> str:
        """Return what messages call the key."""
        raise NotImplementedError

    def listed(self, console: Console, props: dict[str, Any]) -> set[str]:
        """Return the ids of all other keys."""
        raise NotImplementedError

    def made(self, console: Console, props: dict[str, Any]) -> tuple[str, str, str]:
        """Make a key; return its id, itself, and why it was not noted (or nothing)."""
        raise NotImplementedError

    def removed(self, console: Console, props: dict[str, Any], id_: str) -> None:
        """Delete the key in Dify."""
        raise NotImplementedError

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Make a key, in place of one that an interrupted run of this resource made and did not store."""
        key_id, key, unnoted = self.made(patient_console(props), props)
        if unnoted:
            pulumi.log.warn(f"{self.name(key_id)}: not noted on the storage volume ({unnoted})")
        return dynamic.CreateResult(key_id, {**props, "key": key})

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the key gone when Dify does not list it."""

        def look() -> dict[str, Any]:
            if id_ not in self.listed(hasty_console(props), props):
                raise NotFoundError(self.name(id_))
            return props

        return observed(self.name(id_), id_, props, look)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Compare how the console is reached, and what needs another key."""
        return compared(_olds, _news, updates=ACCESS, replaces=self.replaces)

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Store how the console is reached now."""
        return dynamic.UpdateResult({**news, "key": olds["key"]})

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Delete the key: from now on Dify refuses it."""
        delete_or_tell(self.name(id_), lambda: self.removed(hasty_console(props), props, id_))


class AppKeyProvider(KeyProvider):
    """An API key of an app. Another app needs another key."""

    replaces = frozenset({"app_id"})

    def name(self, id_: str) -> str:
        """Return what messages call the key."""
        return f"API key {id_}"

    def listed(self, console: Console, props: dict[str, Any]) -> set[str]:
        """Return the ids of the app's keys."""
        return console.keys(props["app_id"])

    def made(self, console: Console, props: dict[str, Any]) -> tuple[str, str, str]:
        """Make a key of the app."""
        return console.create_key(props["app_id"], props["owner"])

    def removed(self, console: Console, props: dict[str, Any], id_: str) -> None:
        """Delete the key of the app."""
        console.delete_key(props["app_id"], id_)


class DatasetKeyProvider(KeyProvider):
    """A key of the knowledge API."""

    def name(self, id_: str) -> str:
        """Return what messages call the key."""
        return f"key {id_} of the knowledge API"

    def listed(self, console: Console, props: dict[str, Any]) -> set[str]:
        """Return the ids of the workspace's keys."""
        del props
        return console.dataset_keys()

    def made(self, console: Console, props: dict[str, Any]) -> tuple[str, str, str]:
        """Make a key of the workspace."""
        return console.create_dataset_key(props["owner"])

    def removed(self, console: Console, props: dict[str, Any], id_: str) -> None:
        """Delete the key of the workspace."""
        del props
        console.delete_dataset_key(id_)
