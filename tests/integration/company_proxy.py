"""A company's network in small: servers that only a squid reaches, which requires a password and decrypts TLS.

The outside is a network without a route, on which nothing but the servers and the squid is. What a container sends to
the servers therefore went through the squid, or did not arrive.
"""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from dify_kit.setup.base_images import BASE
from infra.platforms.images import BASE_ARGUMENT, context_digest
from support.certificates import Pair, issue
from support.stacks import wait_until

HERE = Path(__file__).parent / "inspecting_squid"
PORT = 3128
# Characters that a URL, squid and a shell read as something else.
USER, PASSWORD = "kit", "p@ss: w%rd/$1'"
BUILD_SECONDS = 900
START_SECONDS = 60
CONFIG = f"""
http_port {PORT} ssl-bump cert=/proxy/inspector.pem generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
sslcrtd_program /usr/lib/squid/security_file_certgen -s /tmp/made -M 4MB
sslcrtd_children 2
acl first_step at_step SslBump1
ssl_bump peek first_step
ssl_bump bump all
tls_outgoing_options cafile=/proxy/public.pem
auth_param basic program /usr/lib/squid/basic_ncsa_auth /proxy/passwords
auth_param basic children 2
acl known proxy_auth REQUIRED
http_access deny !known
http_access allow all
cache deny all
pid_filename none
coredump_dir /tmp
cache_log /dev/stderr
logformat asked %ru %>Hs %un
access_log stdio:/dev/stdout asked
shutdown_lifetime 1 seconds
"""
RUN = "/usr/lib/squid/security_file_certgen -c -s /tmp/made -M 4MB && exec squid -NYC -f /proxy/squid.conf"


def image() -> str:
    """Return the name of the image, built when the engine does not have it yet."""
    client, name = docker.from_env(), f"dify-kit-test/inspecting-squid:{context_digest(HERE)}"
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        command = ["docker", "build", "--quiet", "--build-arg", f"{BASE_ARGUMENT}={BASE}", "--tag", name]
        subprocess.run([*command, str(HERE)], check=True, capture_output=True, timeout=BUILD_SECONDS)
    return name


@dataclass(kw_only=True)
class CompanyProxy:
    """The squid between `inside`, a network's name, and the outside. `directory` has to be readable by others.

    `public` issues the certificates of servers outside; clients inside see those of `inspector` alone.
    """

    name: str
    inside: str
    directory: Path
    public: Pair = field(default_factory=lambda: issue(ca=True, name="public authority"))
    inspector: Pair = field(default_factory=lambda: issue(ca=True, name="the company's own CA"))

    def start(self) -> "CompanyProxy":
        """Start the squid, on both networks."""
        self.client = docker.from_env()
        self.outside = self.client.networks.create(f"{self.name}-outside", internal=True)
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"],
            input=PASSWORD,
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout.strip()
        for file, text in (
            ("squid.conf", CONFIG),
            ("inspector.pem", self.inspector.pem + self.inspector.key_pem),
            ("public.pem", self.public.pem),
            ("passwords", f"{USER}:{hashed}\n"),
        ):
            (self.directory / file).write_text(text, encoding="ascii")
        self.ca_file.write_text(self.inspector.pem, encoding="ascii")
        containers: Any = self.client.containers
        self.squid = containers.create(
            image(),
            entrypoint=["sh", "-c", RUN],
            name=f"{self.name}-proxy",
            network=self.inside,
            volumes={str(self.directory): {"bind": "/proxy", "mode": "ro"}},
        )
        self.outside.connect(self.squid)
        self.squid.start()
        wait_until(self._listens, seconds=START_SECONDS, what="the company's proxy listens")
        return self

    @property
    def ca_file(self) -> Path:
        """The file for `dify:outbound.caFile`."""
        return self.directory / "company-ca.pem"

    @property
    def url(self) -> str:
        """Its URL in a network of one's own, for `dify:outbound.proxy`."""
        return f"http://{self.name}-proxy:{PORT}"

    @property
    def address(self) -> str:
        """Its IP address inside, which this machine reaches."""
        self.squid.reload()
        return str(self.squid.attrs["NetworkSettings"]["Networks"][self.inside]["IPAddress"])

    @property
    def credentials(self) -> str:
        """The secret `dify:outboundCredentials`."""
        return f"{USER}:{PASSWORD}"

    def join(self, container: Any, names: Sequence[str]) -> None:
        """Let a container be a server outside."""
        self.outside.connect(container, aliases=list(names))

    def asked(self) -> list[str]:
        """Return what came through so far, a line for each request: URL, status, user."""
        return [
            line
            for line in self.squid.logs(stderr=False).decode().splitlines()
            if not line.startswith("Initialization")
        ]

    def came(self, part: str, *, seconds: float = 10) -> bool:
        """Tell whether a request with `part` in its line was logged as that of the user, at some time until then."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(part in line and line.endswith(f" {USER}") for line in self.asked()):
                return True
            time.sleep(0.2)
        return False

    def remove(self) -> None:
        """Remove everything, however far the start came."""
        client = docker.from_env()
        for container in client.containers.list(all=True, filters={"name": f"{self.name}-proxy"}):
            container.remove(force=True)
        for network in client.networks.list(names=[f"{self.name}-outside"]):
            network.remove()

    def _listens(self) -> bool:
        ran = self.squid.exec_run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{PORT}"])
        return bool(ran.exit_code == 0)
