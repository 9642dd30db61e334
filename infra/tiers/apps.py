"""The apps tier: the instance claimed, apps imported, keys made, before anything is published."""

from typing import Any

import pulumi

from infra.apps import CANARY, app_file
from infra.platforms.docker import Running
from infra.resources.console import Admin, App, AppKey
from infra.settings import Settings


class AppsTier(pulumi.ComponentResource):
    """Claims Dify for the admin, imports the apps of `dify:apps` and, unless turned off, the canary.

    `facts` maps an app's name to its id and mode, `keys` to its API key; the canary is apart.
    """

    facts: dict[str, Any]
    keys: dict[str, pulumi.Output[str]]
    canary: dict[str, Any] | None
    canary_key: pulumi.Output[str] | None

    def __init__(self, name: str, settings: Settings, api: Running) -> None:
        super().__init__("dify-kit:tiers:Apps", name)
        self._settings = settings
        self._container = api.container.name
        self._ready = api.ready
        self.admin = Admin(
            "admin",
            **self._console(),
            admin_name=settings.admin_name,
            init_password=settings.secrets.init_password,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[api.ready]),
        )
        imported = {app: self._import(app) for app in settings.apps}
        self.facts = {app: self._facts_of(one) for app, (one, _) in imported.items()}
        self.keys = {app: key.key for app, (_, key) in imported.items()}
        self.canary, self.canary_key = None, None
        if settings.canary:
            canary, key = self._import(CANARY)
            self.canary, self.canary_key = self._facts_of(canary), key.key
        self.register_outputs({})

    def _console(self) -> dict[str, Any]:
        """Return what every console resource needs to reach and enter the console."""
        return {
            "container": self._container,
            "console_url": self._settings.urls.console,
            "email": self._settings.admin_email,
            "password": self._settings.secrets.admin_password,
        }

    def _import(self, name: str) -> tuple[App, AppKey]:
        app = App(
            f"app-{name}",
            **self._console(),
            app_name=name,
            dsl=app_file(name).read_text(encoding="utf-8"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.admin]),
        )
        key = AppKey(
            f"key-{name}",
            **self._console(),
            app_id=app.app_id,
            opts=pulumi.ResourceOptions(parent=app),
        )
        return app, key

    @staticmethod
    def _facts_of(app: App) -> dict[str, Any]:
        return {"id": app.app_id, "mode": app.mode}
