"""The apps tier: claims the instance, imports apps and creates keys, before any port is published."""

from typing import Any

import pulumi

from infra.platforms.platform import Running
from infra.resources.console import Admin, App, AppKey, DatasetKey
from infra.settings.apps import CANARY, CANARY_NODES, app_file, dsl_of
from infra.settings.model_providers import LLM
from infra.settings.stack import Settings


class AppsTier(pulumi.ComponentResource):
    """Claims Dify for the admin, imports the apps of `dify:apps` and, unless turned off, those of the smoke tests.

    `facts` maps an app's name to its id and mode, `keys` to its API key. The smoke tests have apps of their own: one
    that answers (`canary`), one whose nodes run in other services (`canary_nodes`), and a key of the knowledge API.
    `tenant_keys` maps a tenant of `dify:oauth` to its key, which only the gateway gets.
    """

    facts: dict[str, Any]
    keys: dict[str, pulumi.Output[str]]
    canary: dict[str, Any] | None
    canary_key: pulumi.Output[str] | None
    canary_nodes: dict[str, Any] | None
    canary_nodes_key: pulumi.Output[str] | None
    canary_dataset_key: pulumi.Output[str] | None
    tenant_keys: dict[str, pulumi.Output[str]]

    def __init__(self, name: str, settings: Settings, api: Running) -> None:
        super().__init__("dify-kit:tiers:Apps", name)
        self._settings = settings
        self._container = api.name
        self._ready = api.ready
        self.admin = Admin(
            "admin",
            **self.console(),
            admin_name=settings.admin_name,
            init_password=settings.secrets.init_password,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[api.ready]),
        )
        tenants = settings.oauth.tenants if settings.oauth else ()
        imported = {app: self._import(app) for app in self._imports(settings)}
        self.facts = {app: self._facts_of(imported[app]) for app in settings.apps}
        self.keys = {app: self._key(f"key-{app}", imported[app]) for app in settings.apps}
        self.canary, self.canary_key = None, None
        self.canary_nodes, self.canary_nodes_key = None, None
        self.canary_dataset_key = None
        if settings.canary:
            self.canary = self._facts_of(imported[CANARY])
            self.canary_key = self._key(f"key-{CANARY}", imported[CANARY])
            self.canary_nodes = self._facts_of(imported[CANARY_NODES])
            self.canary_nodes_key = self._key(f"key-{CANARY_NODES}", imported[CANARY_NODES])
        if settings.canary and settings.canary_knowledge:
            self.canary_dataset_key = self._dataset_key("key-canary-knowledge")
        self.tenant_keys = {
            tenant.name: self._key(f"tenant-{tenant.name}", imported[tenant.app]) for tenant in tenants
        }
        self.register_outputs({})

    @staticmethod
    def _imports(settings: Settings) -> tuple[str, ...]:
        """Return every app to import, without duplicates."""
        tenants = settings.oauth.tenants if settings.oauth else ()
        canary = (CANARY, CANARY_NODES) if settings.canary else ()
        return tuple(dict.fromkeys((*settings.apps, *canary, *(tenant.app for tenant in tenants))))

    def console(self) -> dict[str, Any]:
        """Return the arguments by which every console resource reaches the console and signs in."""
        return {
            "container": self._container,
            "console_url": self._settings.urls.console,
            "email": self._settings.admin_email,
            "password": self._settings.secrets.admin_password,
        }

    def _import(self, name: str) -> App:
        model = self._settings.model_providers.defaults.get(LLM)
        file = app_file(name, self._settings.apps_dir)
        return App(
            f"app-{name}",
            **self.console(),
            app_name=name,
            dsl=dsl_of(file, model.provider, model.model) if model else file.read_text(encoding="utf-8"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.admin]),
        )

    def _key(self, name: str, app: App) -> pulumi.Output[str]:
        return AppKey(
            name,
            **self.console(),
            app_id=app.app_id,
            opts=pulumi.ResourceOptions(parent=app),
        ).key

    def _dataset_key(self, name: str) -> pulumi.Output[str]:
        return DatasetKey(
            name,
            **self.console(),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.admin]),
        ).key

    @staticmethod
    def _facts_of(app: App) -> dict[str, Any]:
        return {"id": app.app_id, "mode": app.mode}
