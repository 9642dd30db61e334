"""The certificates of a test cluster: one CA, valid for 30 days, and what it signs."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from support.certificates import Pair, issue, new_key, pem_of_key, subject_alternative

DAYS = 30


@dataclass(frozen=True, kw_only=True)
class Authority:
    """The cluster's CA, and the key that signs the tokens of ServiceAccounts."""

    ca: Pair
    tokens: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls) -> "Authority":
        """Make both."""
        end = datetime.now(UTC) + timedelta(days=DAYS)
        return cls(ca=issue(ca=True, name="dify-kit test cluster", end=end), tokens=new_key())

    @property
    def token_key(self) -> str:
        """The private key of tokens, PEM."""
        return pem_of_key(self.tokens)

    @property
    def token_public_key(self) -> str:
        """The public key of tokens, PEM."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.tokens.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def sign(self, user: str, *groups: str, hosts: Sequence[str] = ()) -> Pair:
        """Return a certificate for a user of the API with its groups, also for a server at `hosts`."""
        key, now = new_key(), datetime.now(UTC)
        subject = x509.Name(
            [
                *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups),
                x509.NameAttribute(NameOID.COMMON_NAME, user),
            ]
        )
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.ca.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        )
        if hosts:
            builder = builder.add_extension(subject_alternative(hosts), critical=False)
        return Pair(certificate=builder.sign(self.ca.key, hashes.SHA256()), key=key)

    def kubeconfig(self, user: Pair, server: str, name: str) -> str:
        """Return the kubeconfig of a user, with its key, for the API server at a URL; ``name`` names the context."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [
                {
                    "name": name,
                    "cluster": {"server": server, "certificate-authority-data": _data(self.ca.pem)},
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": _data(user.pem),
                        "client-key-data": _data(user.key_pem),
                    },
                }
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        }
        return json.dumps(document, indent=1) + "\n"


def _data(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
