"""Build hook of hatchling: the kit is installed from its checkout, in editable mode, and in no other way."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CheckoutOnly(BuildHookInterface[Any]):
    """Refuses wheels and source distributions: without Pulumi.yaml, templates/ and containers/ they cannot run."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's signature
        """Stop any build but the editable one of tools/bootstrap. Raises SystemExit."""
        if self.target_name != "wheel" or version != "editable":
            hint = "dify-kit runs from its checkout: clone the repository, then run `make setup`"
            raise SystemExit(f"error: a {self.target_name} of dify-kit cannot run\nhint: {hint}")
