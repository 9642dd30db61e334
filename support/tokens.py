"""Makes valid and invalid tokens by hand, without the libraries that the gateway verifies them with."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def es256(key: ec.EllipticCurvePrivateKey, data: bytes, *, low: bool = True) -> bytes:
    """Sign as JWS does: r and s, 32 bytes each; s is the smaller of the two valid values unless `low` is false."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    s = min(s, N - s) if low else max(s, N - s)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public_jwk(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, kid: str, **more: str) -> dict[str, Any]:
    """Return a key's public JWK."""

    def number(value: int) -> str:
        return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))

    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "kid": kid, "n": number(numbers.n), "e": number(numbers.e), **more}
    size = (key.curve.key_size + 7) // 8
    point = key.public_key().public_numbers()
    x, y = (b64(value.to_bytes(size, "big")) for value in (point.x, point.y))
    return {"kty": "EC", "crv": f"P-{key.curve.key_size}", "kid": kid, "x": x, "y": y, **more}


def private_jwk(key: ec.EllipticCurvePrivateKey, kid: str, **more: Any) -> dict[str, Any]:
    """Return a P-256 key's private JWK."""
    d = b64(key.private_numbers().private_value.to_bytes(32, "big"))
    return {**public_jwk(key, kid, use="sig", alg="ES256"), "d": d, **more}


def rs256(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def ps256(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    return key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


@dataclass
class Forge:
    """Knows everything that a token of the gateway needs, its signing key among it."""

    issuer: str
    audience: str
    kid: str
    client: str
    tenant: str
    key: ec.EllipticCurvePrivateKey
    now: int = field(default_factory=lambda: int(time.time()))

    @property
    def header(self) -> dict[str, Any]:
        return {"alg": "ES256", "typ": "at+jwt", "kid": self.kid}

    @property
    def claims(self) -> dict[str, Any]:
        return {
            "iss": self.issuer,
            "sub": self.client,
            "aud": self.audience,
            "client_id": self.client,
            "iat": self.now,
            "exp": self.now + 600,
            "jti": secrets.token_urlsafe(16),
            "scope": "chat",
            "tenant": self.tenant,
        }

    def with_claims(self, **changes: Any) -> str:
        """Return a token, signed by the gateway's own key, with other claims; None removes one."""
        claims = {name: value for name, value in {**self.claims, **changes}.items() if value is not None}
        return self.sign(self.header, claims)

    def with_header(self, **changes: Any) -> str:
        """Return a token, signed by the gateway's own key, with another header; None removes a member."""
        header = {name: value for name, value in {**self.header, **changes}.items() if value is not None}
        return self.sign(header, self.claims)

    def sign(
        self,
        header: Mapping[str, Any] | bytes,
        claims: Mapping[str, Any] | bytes,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> str:
        """Return a token of any header and claims, ready-made bytes among them."""
        signed = self.unsigned(header, claims)
        return f"{signed}.{b64(es256(key or self.key, signed.encode()))}"

    def unsigned(self, header: Mapping[str, Any] | bytes, claims: Mapping[str, Any] | bytes) -> str:
        parts = (part if isinstance(part, bytes) else compact(part) for part in (header, claims))
        return ".".join(b64(part) for part in parts)

    def valid(self) -> str:
        return self.with_claims()

    def signature_replaced(self, signature: bytes) -> str:
        return f"{self.unsigned(self.header, self.claims)}.{b64(signature)}"

    def hmac_signed(self, secret: bytes, algorithm: str = "HS256") -> str:
        """Return a token signed with a public key as if it were a shared secret."""
        signed = self.unsigned({**self.header, "alg": algorithm}, self.claims)
        digest = hmac.new(secret, signed.encode(), getattr(hashlib, f"sha{algorithm[2:]}")).digest()
        return f"{signed}.{b64(digest)}"

    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def public_der(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def der_signature(self, signed: str) -> bytes:
        raw = es256(self.key, signed.encode())
        return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
