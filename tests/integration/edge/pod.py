"""An edge with the command of a pod, and a certificate in a directory as the kubelet fills it from a Secret."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography import x509

from infra.catalogue import ports
from infra.edge.paths import EDGE_DIRECTORY, PUBLISHED
from infra.edge.tls import SECRET_CERTIFICATE, SECRET_KEY, SECRET_LINK
from infra.services.edge import run_script
from support.certificates import Pair, issue
from tests.integration.edge.container import PLAIN, Edge

NAME = "localhost"
POD: Mapping[str, Any] = MappingProxyType(
    {
        **PLAIN,
        "platform": "kubernetes",
        "kubernetes": {"context": "test", "registry": "preloaded"},
        # Both ports serve Dify: the tests of this folder wait for the plain one.
        "tls": {"mode": "cert-manager", "issuer": {"name": "internal"}, "redirect": False},
    }
)


class PodEdge(Edge):
    """An edge with the command of a pod, and a directory in the place of its Secret."""

    def __init__(
        self,
        directory: Path,
        secret: Path,
        plain: Mapping[str, Any] = POD,
        *,
        published: tuple[int, ...] = (ports.EDGE_HTTP, ports.EDGE_HTTPS),
    ) -> None:
        self.secret = secret
        self._count = 0
        self.place(issue([NAME]))
        super().__init__(directory, plain, published=published)
        self.port_of = {port: self.port(port) for port in published}

    def place(self, pair: Pair, *, key: str = "") -> None:
        """Change the Secret: a directory of its own, and a link to it that changes in one step."""
        self._count += 1
        name = f"..{self._count}"
        (self.secret / name).mkdir()
        (self.secret / name / SECRET_CERTIFICATE).write_text(pair.pem)
        (self.secret / name / SECRET_KEY).write_text(key or pair.key_pem)
        (self.secret / "..new").symlink_to(name)
        (self.secret / "..new").rename(self.secret / SECRET_LINK)
        for file in (SECRET_CERTIFICATE, SECRET_KEY):
            if not (self.secret / file).is_symlink():
                (self.secret / file).symlink_to(f"{SECRET_LINK}/{file}")

    def volumes(self) -> dict[str, dict[str, str]]:
        (config,) = super().volumes()
        return {
            config: {"bind": f"{EDGE_DIRECTORY}/current", "mode": "ro"},
            str(self.secret): {"bind": PUBLISHED, "mode": "ro"},
        }

    def command(self) -> list[str]:
        return ["sh", "-c", run_script((), link=f"{PUBLISHED}/{SECRET_LINK}")]

    @property
    def served(self) -> int:
        """The serial number of the certificate that a new connection gets."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.port(ports.EDGE_HTTPS)))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number
