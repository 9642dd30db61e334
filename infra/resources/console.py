"""Dify's admin, apps and API keys as Pulumi resources.

The providers are pickled by reference: this module must keep its name as long as stacks exist. They store the
api container's name, not its id, so a recreated api changes nothing here.
"""

import hashlib
from typing import Any

import pulumi
import yaml
from pulumi import dynamic

from infra.resources.console_client import Console, ConsoleError, NotFoundError
from infra.resources.console_transport import ContainerMissingError

MARKER = "(managed by dify-kit: {name})"
GONE = dynamic.ReadResult("", {})


def _console(props: dict[str, Any]) -> Console:
    return Console(
        container=props["container"],
        url=props["console_url"],
        email=props["email"],
        password=props["password"],
    )


def _diff(
    olds: dict[str, Any], news: dict[str, Any], *, updates: set[str], replaces: set[str]
) -> dynamic.DiffResult:
    changed = {key for key in updates | replaces if olds.get(key) != news.get(key)}
    return dynamic.DiffResult(
        changes=bool(changed), replaces=sorted(changed & replaces), delete_before_replace=True
    )


# How the console is reached: a change is written down, and concerns nothing that Dify stores.
ACCESS = {"container", "console_url", "email", "password"}


def _delete_quietly(what: str, container: str, action: Any) -> None:  # noqa: ANN401  # a closure
    try:
        action()
    except ContainerMissingError:
        pulumi.log.warn(f"{what}: {container} is gone, so it stays in Dify's database")


class AdminProvider(dynamic.ResourceProvider):
    """Claims the instance; adopts it when it is claimed with the same credentials."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Claim or adopt. Raises when somebody else has claimed the instance."""
        console = _console(props)
        if not console.setup_finished():
            console.claim(props["admin_name"], props["init_password"])
        console.login()
        return dynamic.CreateResult(props["email"], props)

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the admin gone when the instance is not claimed (an emptied database)."""
        try:
            finished = _console(props).setup_finished()
        except ContainerMissingError:
            # The api is being recreated: nothing can be said, and nothing was lost.
            return dynamic.ReadResult(id_, props)
        return dynamic.ReadResult(id_, props) if finished else GONE

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Everything can change in place, except the e-mail, which `update` refuses."""
        return _diff(_olds, _news, updates=ACCESS | {"admin_name", "init_password"}, replaces=set())

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.UpdateResult:
        """Change password and name in Dify."""
        if _olds["email"] != _news["email"]:
            raise ConsoleError(
                f"dify:adminEmail: {_news['email']}: the admin is {_olds['email']}, and Dify changes an e-mail only "
                "by mail; set it back, or change it in the console and run `pulumi refresh` afterwards"
            )
        if _olds["password"] != _news["password"]:
            _console({**_news, "password": _olds["password"]}).change_password(_news["password"])
        if _olds["admin_name"] != _news["admin_name"]:
            _console(_news).rename(_news["admin_name"])
        return dynamic.UpdateResult(_news)

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: an instance cannot be unclaimed, and its data may outlive the stack."""


class AppProvider(dynamic.ResourceProvider):
    """An app, described by its DSL."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Import the app; one that an interrupted run left is found by its description and used again."""
        console = _console(props)
        found = console.find_app(MARKER.format(name=props["app_name"]))
        app_id = console.import_app(props["dsl"], str(found["id"]) if found else None)
        return dynamic.CreateResult(app_id, {**props, "app_id": app_id, "mode": console.app(app_id)["mode"]})

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the app gone when Dify does not have it."""
        try:
            app = _console(props).app(id_)
        except NotFoundError:
            return GONE
        except ContainerMissingError:
            return dynamic.ReadResult(id_, props)
        return dynamic.ReadResult(id_, {**props, "mode": app["mode"]})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Import again when the DSL changed; the app keeps its id, its keys and its conversations."""
        return _diff(_olds, _news, updates=ACCESS | {"digest"}, replaces={"app_name"})

    def update(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Import the new DSL over the app."""
        console = _console(news)
        if olds["digest"] != news["digest"]:
            console.import_app(news["dsl"], id_)
        return dynamic.UpdateResult({**news, "app_id": id_, "mode": console.app(id_)["mode"]})

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Keep the app: it holds people's conversations, and a later `up` finds it by its description."""


class AppKeyProvider(dynamic.ResourceProvider):
    """An API key of an app. Dify cannot name keys, so each create makes a new one."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Make a key."""
        key_id, key = _console(props).create_key(props["app_id"])
        return dynamic.CreateResult(key_id, {**props, "key": key})

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the key gone when Dify does not list it."""
        try:
            known = {str(key["id"]) for key in _console(props).keys(props["app_id"])}
        except NotFoundError:
            return GONE
        except ContainerMissingError:
            return dynamic.ReadResult(id_, props)
        return dynamic.ReadResult(id_, props) if id_ in known else GONE

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Another app needs another key."""
        return _diff(_olds, _news, updates=ACCESS, replaces={"app_id"})

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Write down how the console is reached now."""
        return dynamic.UpdateResult({**news, "key": olds["key"]})

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Delete the key: from now on Dify refuses it."""
        _delete_quietly(
            "API key", props["container"], lambda: _console(props).delete_key(props["app_id"], id_)
        )


class Admin(dynamic.Resource):
    """The account that owns the instance."""

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        console_url: pulumi.Input[str],
        email: pulumi.Input[str],
        password: pulumi.Input[str],
        admin_name: pulumi.Input[str],
        init_password: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "container": container,
            "console_url": console_url,
            "email": email,
            "password": password,
            "admin_name": admin_name,
            "init_password": init_password,
        }
        super().__init__(AdminProvider(), name, props, opts)


class App(dynamic.Resource):
    """An app. Outputs: `app_id`, and `mode` as Dify names it."""

    app_id: pulumi.Output[str]
    mode: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        console_url: pulumi.Input[str],
        email: pulumi.Input[str],
        password: pulumi.Input[str],
        app_name: str,
        dsl: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        marked = mark(dsl, app_name)
        props = {
            "container": container,
            "console_url": console_url,
            "email": email,
            "password": password,
            "app_name": app_name,
            "dsl": marked,
            "digest": hashlib.sha256(marked.encode()).hexdigest(),
            "app_id": None,
            "mode": None,
        }
        super().__init__(AppProvider(), name, props, opts)


class AppKey(dynamic.Resource):
    """An API key of an app. Output: `key`, a secret."""

    key: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        console_url: pulumi.Input[str],
        email: pulumi.Input[str],
        password: pulumi.Input[str],
        app_id: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "container": container,
            "console_url": console_url,
            "email": email,
            "password": password,
            "app_id": app_id,
            "key": None,
        }
        secret = pulumi.ResourceOptions(additional_secret_outputs=["key"])
        super().__init__(AppKeyProvider(), name, props, pulumi.ResourceOptions.merge(opts, secret))


def mark(dsl: str, app_name: str) -> str:
    """Return the DSL with a description by which the app is found again after a lost state."""
    document = yaml.safe_load(dsl)
    described = str(document["app"].get("description") or "").strip()
    document["app"]["description"] = f"{described} {MARKER.format(name=app_name)}".strip()
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
