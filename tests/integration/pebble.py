"""Pebble, Let's Encrypt's small ACME server for tests, with its own name server; on addresses of this machine."""

import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from json import dumps
from pathlib import Path

import httpx

from dify_kit.setup.commands import cache_directory
from dify_kit.setup.go_toolchain import find_go
from support.certificates import issue
from support.ports import free_port
from support.stacks import wait_until

VERSION = "v2.10.1"
BUILD_SECONDS = 900


def programs() -> Path:
    """Return the directory with pebble and pebble-challtestsrv, built once for each version of them."""
    target = cache_directory() / f"pebble-{VERSION.removeprefix('v')}"
    names = ("pebble", "pebble-challtestsrv")
    if not all((target / name).is_file() for name in names):
        go = find_go()
        modules = [f"github.com/letsencrypt/pebble/v2/cmd/{name}@{VERSION}" for name in names]
        try:
            subprocess.run(
                [str(go.go), "install", *modules],
                check=True,
                env=go.environment() | {"GOBIN": str(target)},
                timeout=BUILD_SECONDS,
            )
        finally:
            go.clean()
    return target


@dataclass(frozen=True, kw_only=True)
class Pebble:
    """A running Pebble: its directory's URL, the file with the CA of that URL, and where it is managed."""

    directory: str
    ca_file: Path
    management: str
    names: str

    def root(self) -> str:
        """Return the root of the certificates it gives, in PEM: a new one for each start."""
        answer = httpx.get(f"{self.management}/roots/0", verify=self._trusting(), timeout=10)
        assert answer.status_code == 200
        return answer.text

    def _trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def lead(self, name: str, address: str) -> None:
        """Let a host name lead to an address, for Pebble's checks."""
        for kind, body in (
            ("clear-a", {"host": f"{name}."}),
            ("add-a", {"host": f"{name}.", "addresses": [address]}),
        ):
            assert httpx.post(f"{self.names}/{kind}", json=body, timeout=10).status_code == 200


@contextmanager
def pebble(scratch: Path, *, address: str, http_port: int) -> Iterator[Pebble]:
    """Run Pebble on `address`; it checks names at `http_port` of where they lead."""
    found = programs()
    ca = issue(ca=True, name="pebble's own CA")
    own = issue([address, "127.0.0.1"], issuer=ca, name="pebble")
    for file, text in (("ca.pem", ca.pem), ("own.pem", own.pem), ("own-key.pem", own.key_pem)):
        (scratch / file).write_text(text, encoding="utf-8")
    listen, manage, dns, dns_manage = (
        f"{where}:{free_port(where)}" for where in (address, "127.0.0.1", "127.0.0.1", "127.0.0.1")
    )
    config = {
        "pebble": {
            "listenAddress": listen,
            "managementListenAddress": manage,
            "certificate": str(scratch / "own.pem"),
            "privateKey": str(scratch / "own-key.pem"),
            "httpPort": http_port,
            "tlsPort": 1,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
    }
    (scratch / "pebble.json").write_text(dumps(config), encoding="utf-8")
    off = [part for kind in ("http01", "https01", "tlsalpn01", "doh") for part in (f"-{kind}", "")]
    answers = ["-dnsserver", dns, "-management", dns_manage, "-defaultIPv4", "", "-defaultIPv6", ""]
    commands = [
        [str(found / "pebble-challtestsrv"), *off, *answers],
        [str(found / "pebble"), "-config", str(scratch / "pebble.json"), "-dnsserver", dns],
    ]
    running = []
    with (scratch / "pebble.log").open("w", encoding="utf-8") as log:
        try:
            for command in commands:
                running.append(  # noqa: PERF401  # the second may fail: the first has to be ended then
                    subprocess.Popen(
                        command,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        # By default it also refuses one nonce in twenty, and certbot tries but once again.
                        env=os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
                    )
                )
            server = Pebble(
                directory=f"https://{listen}/dir",
                ca_file=scratch / "ca.pem",
                management=f"https://{manage}",
                names=f"http://{dns_manage}",
            )
            wait_until(
                lambda: _answers(server), seconds=120, what=f"Pebble answers, see {scratch}/pebble.log"
            )
            yield server
        finally:
            for process in running:
                process.terminate()
                process.wait(timeout=20)


def _answers(server: Pebble) -> bool:
    try:
        # Its name server answers a request that it does not understand.
        return bool(server.root()) and bool(httpx.get(server.names, timeout=5).status_code)
    except httpx.HTTPError:
        return False
