"""The settings of TLS, and the certificates that they name, derive or request."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra import hints
from infra.catalogue import checks
from infra.settings import certificates, selfsigned
from infra.settings.ca import read_ca
from infra.settings.certificates import Certificate
from infra.settings.reader import Problems, Section
from infra.settings.secrets import PEM_FILES
from infra.settings.stack_secrets import SecretReader

if TYPE_CHECKING:
    import pulumi

CERT_MANAGER = "cert-manager"
MODES = ("off", "selfsigned", "files", "acme", CERT_MANAGER)
# Of cert-manager: an Issuer is in the stack's namespace, a ClusterIssuer in none.
ISSUER_KINDS = ("Issuer", "ClusterIssuer")
# Two years, the most that browsers' preload lists require.
MAX_HSTS = 63072000
EXPIRY_WARNING_DAYS = 14
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_DIRECTORY = re.compile(r"https://[^\s\"'\\]+")


@dataclass(frozen=True, kw_only=True)
class Acme:
    """Where certificates are requested. `ca` (PEM) verifies the directory's own TLS; empty for the public CAs."""

    email: str
    directory: str
    ca: str


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """An issuer of cert-manager; ``kind`` is one of `ISSUER_KINDS`."""

    name: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How the edge serves TLS. `hosts` are the names that people use, without those of loopback.

    `certificate` and `key` (PEM) are known for selfsigned and files, and come later otherwise. `ca` is the
    PEM to trust for selfsigned, else empty.
    """

    mode: str
    redirect: bool
    hsts_seconds: int
    hosts: tuple[str, ...]
    certificate: Certificate | None = None
    key: "pulumi.Output[str] | None" = None
    ca: str = ""
    acme: Acme | None = None
    issuer: Issuer | None = None

    @property
    def on(self) -> bool:
        """Whether the edge terminates TLS itself."""
        return self.mode != "off"


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Other settings that these depend on: `names` are all that the edge serves, `hosts` those that users enter.

    `cluster`: the stack runs on Kubernetes.
    """

    stack: str
    bind_address: str
    http_port: int
    https_port: int
    public_url: str
    hosts: Sequence[str]
    names: Sequence[str]
    cluster: bool = False


def mode_of(section: Section) -> str:
    """Return the mode. YAML reads an unquoted `off` as false, and means this."""
    return "off" if section.raw("mode") is False else section.choice("mode", MODES)


class TlsReader:
    """Reads `dify:tls` and what belongs to it. Every method reports to the same list of problems."""

    def __init__(
        self, section: Section, problems: Problems, secrets: SecretReader, around: Surroundings
    ) -> None:
        self._section = section
        self._problems = problems
        self._secrets = secrets
        self._around = around

    def read(self, mode: str) -> Tls:
        """Return the settings of `mode`; only to be used when no problem was reported."""
        section = self._section
        common: dict[str, Any] = {
            "mode": mode,
            "redirect": section.boolean("redirect"),
            "hsts_seconds": section.integer("hstsSeconds", 0, MAX_HSTS),
            "hosts": tuple(self._around.hosts),
        }
        acme, issuer = section.part("acme"), section.part("issuer")
        if mode == "off":
            if common["hsts_seconds"]:
                self._problems.add(
                    "tls.hstsSeconds",
                    common["hsts_seconds"],
                    "the edge does not serve TLS (dify:tls.mode off)",
                    "set it to 0, or turn TLS on",
                )
            return Tls(**common)
        self._check_surroundings()
        if mode == "selfsigned":
            return self._selfsigned(common)
        if mode == "files":
            return self._files(common)
        if mode == CERT_MANAGER:
            return Tls(**common, issuer=self._issuer(issuer))
        return Tls(**common, acme=self._acme(acme))

    def _check_surroundings(self) -> None:
        around = self._around
        if around.https_port == around.http_port:
            self._problems.add(
                "httpsPort", around.https_port, "is also dify:httpPort", "use another port for TLS"
            )
        if not around.public_url.startswith("https://"):
            self._problems.add(
                "publicUrl", around.public_url, "is http while TLS is on", "start it with https://"
            )

    def _selfsigned(self, common: dict[str, Any]) -> Tls:
        seed = self._secrets.text("tlsSeed", required=True)
        issued = selfsigned.issue(seed, self._around.stack, self._around.names, certificates.now_utc())
        return Tls(
            **common, certificate=issued.certificate, key=self._secrets.conceal(issued.key), ca=issued.ca
        )

    def _files(self, common: dict[str, Any]) -> Tls:
        texts = {}
        for key in (certificates.CERTIFICATE, certificates.KEY):
            texts[key] = self._secrets.text(key, required=True)
        if not all(texts.values()):
            return Tls(**common)
        chain, key = texts[certificates.CERTIFICATE], texts[certificates.KEY]
        now = certificates.now_utc()
        found = certificates.problems(chain, key, self._around.hosts, now)
        for problem in found:
            file = PEM_FILES[problem.setting]
            command = hints.assign(problem.setting, stack=self._around.stack, stdin=file)
            self._problems.add_secret(problem.setting, problem.why, f"{problem.fix}: `{command}`")
        if found:
            return Tls(**common)
        certificate = certificates.describe(chain)
        if (days := (certificate.not_after - now).days) < EXPIRY_WARNING_DAYS:
            self._problems.warnings.append(
                f"dify:tlsCertificate: expires in {days} days, on {certificate.not_after:%Y-%m-%d}; set a "
                "renewed one"
            )
        return Tls(**common, certificate=certificate, key=self._secrets.conceal(key))

    def _issuer(self, section: Section) -> Issuer:
        if not self._around.cluster:
            self._problems.add(
                "tls.mode",
                CERT_MANAGER,
                "cert-manager is a part of a Kubernetes cluster, and dify:platform is docker",
                "use acme, or set platform to kubernetes",
            )
        name, kind = section.text("name"), section.choice("kind", ISSUER_KINDS)
        if not _OBJECT.fullmatch(name):
            self._problems.add(
                section.key("name"),
                name,
                "is not the name of an issuer" if name else "is empty (dify:tls.mode cert-manager)",
                "name one that `kubectl get clusterissuers,issuers --all-namespaces` lists",
            )
        return Issuer(name=name, kind=kind)

    def _acme(self, section: Section) -> Acme:
        email, directory = section.text("email"), section.text("directory")
        if not checks.EMAIL.fullmatch(email):
            self._problems.add(
                section.key("email"), email, "is not an e-mail address", "name a contact for the CA"
            )
        if not _DIRECTORY.fullmatch(directory):
            self._problems.add(
                section.key("directory"), directory, "is not an https URL", "use the directory URL of your CA"
            )
        if not section.boolean("agreeTerms"):
            self._problems.add(
                section.key("agreeTerms"),
                "false",
                "the CA issues certificates only after its terms are accepted",
                "read them, then set it to true",
            )
        self._check_reachable(private_ca=directory != section.defaults["directory"])
        return Acme(email=email, directory=directory, ca=read_ca(section))

    def _check_reachable(self, *, private_ca: bool) -> None:
        """Report what keeps the CA from reaching this edge by its names, on port 80."""
        address = certificates.address_of(self._around.bind_address)
        if address and (address.is_loopback or (_inside(address) and not private_ca)):
            self._problems.add(
                "bindAddress",
                self._around.bind_address,
                "the CA cannot reach it to validate the names (dify:tls.mode acme)",
                "use 0.0.0.0 or a public address, or `selfsigned` for trying out",
            )
        for host in self._around.hosts:
            if host == "localhost" or host.endswith(".localhost") or certificates.address_of(host):
                self._problems.add(
                    "publicUrl",
                    host,
                    "no CA issues a certificate for it (dify:tls.mode acme)",
                    "use host names that resolve to this machine, in publicUrl, urls and serverNames",
                )


def _inside(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether an address is private; 0.0.0.0 and :: mean every interface."""
    return address.is_private and not address.is_unspecified
