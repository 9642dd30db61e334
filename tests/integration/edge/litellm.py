"""An edge whose engine is LiteLLM: its container as the stack has it, and its configuration as `up` brings it."""

import subprocess
from collections.abc import Mapping
from typing import Any

from bench.images import of
from infra.catalogue.container_paths import LITELLM_UID
from infra.resources.litellm_config import LitellmContainer, go_live
from infra.services import litellm_files as litellm_config
from infra.services.specs import spec as spec_of
from infra.settings.llm import LITELLM
from support.configuration import resolved, settings
from tests.integration.edge.llm import LlmEdge


class LitellmEdge(LlmEdge):
    """The edge, and LiteLLM between it and the upstreams."""

    engine = LITELLM
    litellm: Any

    def start_upstream(self) -> Any:
        """Start the upstreams, and LiteLLM, which waits for its configuration."""
        container = super().start_upstream()
        volume = self.client.volumes.create(f"{self.name}-litellm")
        self.things.append(volume)
        # Any: the types of the library lack some of these.
        containers: Any = self.client.containers
        self.litellm = containers.create(of(LITELLM), network=self.name, **self._options(volume.name))
        # Removed first: a volume in use stays.
        self.things.insert(0, self.litellm)
        self.network.disconnect(self.litellm)
        self.network.connect(self.litellm, aliases=[LITELLM])
        self.litellm.start()
        return container

    def _options(self, volume: str) -> dict[str, Any]:
        """Return what the stack's own description says, in the engine's words."""
        spec = spec_of("litellm", found := settings(), found.dify)
        (mount,) = spec.mounts
        return {
            "entrypoint": list(spec.entrypoint or ()),
            "command": list(spec.command or ()),
            "environment": dict(spec.environment),
            "user": spec.user,
            "tmpfs": dict(spec.tmpfs),
            "read_only": spec.read_only,
            "mem_limit": f"{spec.limits.memory}m",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "volumes": {volume: {"bind": mount.path, "mode": "rw"}},
        }

    def write(self, files: Mapping[str, str]) -> None:
        """Write nginx's files, and let LiteLLM's go live."""
        super().write(files)
        self.change(self.litellm_files())

    def litellm_files(self) -> dict[str, str]:
        """Return LiteLLM's files, with the keys of the upstreams."""
        assert self.settings.llm is not None
        assert self.settings.llm.litellm is not None
        master = resolved({"key": self.settings.llm.litellm.key})["key"]
        return litellm_config.texts(self.settings.llm, self.upstream_keys, master, None)

    def change(self, files: Mapping[str, str]) -> str:
        """Bring a configuration to LiteLLM as `up` does, and return its name."""
        return go_live(LitellmContainer(self.litellm.id), {"files": dict(files), "owner": LITELLM_UID})

    def in_litellm(self, *command: str, user: str = "") -> str:
        """Return what a command in LiteLLM's container prints, be it as it may."""
        as_user = ["--user", user] if user else []
        done = subprocess.run(
            ["docker", "exec", *as_user, self.litellm.id, *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout + done.stderr
