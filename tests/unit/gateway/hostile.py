"""Authorization headers that must never be let in: each is a function from a forge to the header's value."""

import base64
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support.tokens import Forge, N, b64, compact, es256, public_jwk, rs256, unb64

Case = Callable[[Forge], str]

_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_STRANGER = ec.generate_private_key(ec.SECP256R1())


def _claims(**changes: Any) -> Case:
    return lambda forge: "Bearer " + forge.with_claims(**changes)


def _header(**changes: Any) -> Case:
    return lambda forge: "Bearer " + forge.with_header(**changes)


def _later(name: str, seconds: int) -> Case:
    return lambda forge: "Bearer " + forge.with_claims(**{name: forge.now + seconds})


def _raw_claims(change: Callable[[bytes], bytes]) -> Case:
    return lambda forge: "Bearer " + forge.sign(forge.header, change(compact(forge.claims)))


def _raw_header(change: Callable[[bytes], bytes]) -> Case:
    return lambda forge: "Bearer " + forge.sign(change(compact(forge.header)), forge.claims)


def _member(text: str) -> Callable[[bytes], bytes]:
    """Append a member to a JSON object."""
    return lambda data: data[:-1] + b"," + text.encode() + b"}"


def _spelled(change: Callable[[str], str]) -> Case:
    return lambda forge: change("Bearer " + forge.valid())


def _signature(change: Callable[[bytes], bytes]) -> Case:
    def case(forge: Forge) -> str:
        signed, _, signature = forge.valid().rpartition(".")
        return f"Bearer {signed}.{b64(change(unb64(signature)))}"

    return case


def _part(number: int, change: Callable[[str], str]) -> Case:
    def case(forge: Forge) -> str:
        parts = forge.valid().split(".")
        parts[number] = change(parts[number])
        return "Bearer " + ".".join(parts)

    return case


def _tampered(number: int, **changes: Any) -> Case:
    """Change header (0) or claims (1) and keep the signature."""
    return _part(number, lambda text: b64(compact({**json.loads(unb64(text)), **changes})))


def _number(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _same_bytes_other_text(text: str) -> str:
    """Set bits that the last character of a base64url text does not use."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(text[-1])
    other = text[:-1] + alphabet[last ^ 1]
    assert unb64(other) == unb64(text), "the signature's 64 bytes leave unused bits"
    return other


def _other_algorithm(algorithm: str, sign: Callable[[bytes], bytes]) -> Case:
    def case(forge: Forge) -> str:
        signed = forge.unsigned({**forge.header, "alg": algorithm}, forge.claims)
        return f"Bearer {signed}.{b64(sign(signed.encode()))}"

    return case


def _with_own_key(**header: Any) -> Case:
    """Sign with an unknown key, and include that key in the header."""
    return lambda forge: "Bearer " + forge.sign({**forge.header, **header}, forge.claims, _STRANGER)


def _unencoded(forge: Forge) -> str:
    """Build what RFC 7797 calls an unencoded payload: signed over the text itself."""
    header = b64(compact({**forge.header, "b64": False, "crit": ["b64"]}))
    payload = compact(forge.claims)
    signature = es256(forge.key, header.encode() + b"." + payload)
    return f"Bearer {header}.{b64(payload)}.{b64(signature)}"


def _json_form(forge: Forge) -> str:
    protected, payload, signature = forge.valid().split(".")
    return "Bearer " + json.dumps({"protected": protected, "payload": payload, "signature": signature})


def _der_signature(forge: Forge) -> str:
    signed = forge.unsigned(forge.header, forge.claims)
    return f"Bearer {signed}.{b64(forge.der_signature(signed))}"


def _high_s(forge: Forge) -> str:
    signed = forge.unsigned(forge.header, forge.claims)
    return f"Bearer {signed}.{b64(es256(forge.key, signed.encode(), low=False))}"


def _foreign_signature(forge: Forge) -> str:
    return "Bearer " + forge.valid().rpartition(".")[0] + "." + forge.valid().rpartition(".")[2]


_P384 = ec.generate_private_key(ec.SECP384R1())

CASES: dict[str, Case] = {
    # Algorithms.
    "alg none, no signature": lambda f: f"Bearer {f.unsigned({**f.header, 'alg': 'none'}, f.claims)}.",
    **{
        f"alg {name}, some signature": lambda f, name=name: (  # type: ignore[misc]
            f"Bearer {f.unsigned({**f.header, 'alg': name}, f.claims)}.{b64(b'x')}"
        )
        for name in ("none", "None", "NONE", "nOnE", "")
    },
    "alg none, right signature": _header(alg="none"),
    "HS256 with the public key as PEM": lambda f: "Bearer " + f.hmac_signed(f.public_pem()),
    "HS256 with the PEM without its last newline": lambda f: (
        "Bearer " + f.hmac_signed(f.public_pem().strip())
    ),
    "HS256 with the public key as DER": lambda f: "Bearer " + f.hmac_signed(f.public_der()),
    "HS256 with the public JWK": lambda f: "Bearer " + f.hmac_signed(compact(public_jwk(f.key, f.kid))),
    "HS256 with x": lambda f: "Bearer " + f.hmac_signed(unb64(public_jwk(f.key, f.kid)["x"])),
    "HS256 with nothing": lambda f: "Bearer " + f.hmac_signed(b""),
    "HS384 with the public key": lambda f: "Bearer " + f.hmac_signed(f.public_pem(), "HS384"),
    "HS512 with the public key": lambda f: "Bearer " + f.hmac_signed(f.public_pem(), "HS512"),
    "RS256 with a stranger's key": _other_algorithm("RS256", lambda data: rs256(_RSA, data)),
    "ES384 with our kid": _other_algorithm("ES384", lambda data: es256(_STRANGER, data) * 2),
    "ES256K": _header(alg="ES256K"),
    "EdDSA": _header(alg="EdDSA"),
    "alg in small letters": _header(alg="es256"),
    "alg with a space": _header(alg="ES256 "),
    "alg missing": _header(alg=None),
    "alg a list": _header(alg=["ES256"]),
    "alg a number": _header(alg=256),
    "alg an object": _header(alg={"ES256": 1}),
    # Keys.
    "stranger's key under our kid": lambda f: "Bearer " + f.sign(f.header, f.claims, _STRANGER),
    "foreign kid": lambda f: "Bearer " + f.sign({**f.header, "kid": "foreign"}, f.claims, _STRANGER),
    "foreign kid, our key": _header(kid="foreign"),
    "kid missing": _header(kid=None),
    "kid null": _raw_header(lambda data: data.replace(b'"kid":"', b'"kid":null,"was":"')),
    "kid a number": _header(kid=1),
    "kid a list": lambda f: "Bearer " + f.with_header(kid=[f.kid]),
    "kid empty": _header(kid=""),
    "kid a path": _header(kid="../../../../dev/null"),
    "kid an address": _header(kid="https://evil.example/key"),
    "kid an SQL text": _header(kid="' OR '1'='1"),
    "kid with a space behind": lambda f: "Bearer " + f.with_header(kid=f.kid + " "),
    "kid in other case": lambda f: "Bearer " + f.with_header(kid=f.kid.swapcase()),
    "own key in jwk": _with_own_key(jwk=public_jwk(_STRANGER, "stranger")),
    "own key in jwk, its kid": _with_own_key(jwk=public_jwk(_STRANGER, "stranger"), kid="stranger"),
    "own key in jwk, no kid": lambda f: (
        "Bearer "
        + f.sign({"alg": "ES256", "typ": "at+jwt", "jwk": public_jwk(_STRANGER, "s")}, f.claims, _STRANGER)
    ),
    "jku": _with_own_key(jku="https://evil.example/jwks.json"),
    "jku, right signature": _header(jku="https://evil.example/jwks.json"),
    "x5u": _with_own_key(x5u="https://evil.example/chain.pem"),
    "x5c": _with_own_key(x5c=["MIIB"]),
    # Headers.
    "typ JWT": _header(typ="JWT"),
    "typ missing": _header(typ=None),
    "typ in capitals": _header(typ="AT+JWT"),
    "typ of an ID token": _header(typ="id+jwt"),
    "typ a number": _header(typ=1),
    "crit with a known claim": _header(crit=["exp"]),
    "crit empty": _header(crit=[]),
    "crit with an unknown name": _header(crit=["b65"], b65=True),
    "crit a text": _header(crit="b64"),
    "b64 false, crit": _unencoded,
    "b64 false, no crit": _header(b64=False),
    "b64 true": _header(b64=True),
    "cty JWT": _header(cty="JWT"),
    "zip": _header(zip="DEF"),
    "enc": _header(enc="A256GCM"),
    "unknown header": _header(foo="bar"),
    "repeated alg": _raw_header(_member('"alg":"ES256"')),
    "repeated kid": _raw_header(_member('"kid":"foreign"')),
    "header a list": _raw_header(lambda data: b"[" + data + b"]"),
    "header a text": _raw_header(lambda _data: b'"ES256"'),
    "header no JSON": _raw_header(lambda _data: b"alg=ES256"),
    "header of broken UTF-8": _raw_header(lambda data: data[:-1] + b',"x":"\xff"}'),
    # Claims.
    "other issuer": _claims(iss="https://evil.example"),
    "issuer with a slash": lambda f: "Bearer " + f.with_claims(iss=f.issuer + "/"),
    "issuer in capitals": lambda f: "Bearer " + f.with_claims(iss=f.issuer.upper()),
    "issuer missing": _claims(iss=None),
    "issuer a list": lambda f: "Bearer " + f.with_claims(iss=[f.issuer]),
    "issuer an object": _claims(iss={}),
    "other audience": _claims(aud="https://other.example"),
    "audience missing": _claims(aud=None),
    "audience empty": _claims(aud=""),
    "audience a list with ours": lambda f: (
        "Bearer " + f.with_claims(aud=[f.audience, "https://other.example"])
    ),
    "audience with more behind": lambda f: "Bearer " + f.with_claims(aud=f.audience + ".evil.example"),
    "subject another client": _claims(sub="other"),
    "subject missing": _claims(sub=None),
    "unknown client": _claims(sub="nobody", client_id="nobody"),
    "disabled client": _claims(sub="disabled", client_id="disabled"),
    "client in other case": lambda f: (
        "Bearer " + f.with_claims(sub=f.client.upper(), client_id=f.client.upper())
    ),
    "client a number": _claims(client_id=1, sub=1),
    "client a list": lambda f: "Bearer " + f.with_claims(client_id=[f.client]),
    "client id missing": _claims(client_id=None),
    "another tenant": _claims(tenant="globex"),
    "unknown tenant": _claims(tenant="nobody"),
    "tenant missing": _claims(tenant=None),
    "tenant a list": lambda f: "Bearer " + f.with_claims(tenant=[f.tenant, "globex"]),
    "expired": _later("exp", -1),
    "expires now": _later("exp", 0),
    "exp missing": _claims(exp=None),
    "exp a text": lambda f: "Bearer " + f.with_claims(exp=str(f.now + 600)),
    "exp a fraction": lambda f: "Bearer " + f.with_claims(exp=f.now + 600.5),
    "exp true": _claims(exp=True),
    "exp negative": _claims(exp=-1),
    "exp of 400 digits": lambda f: "Bearer " + f.with_claims(exp=10**400),
    "exp of 5000 digits": _raw_claims(_member('"big":' + "9" * 5000)),
    "exp infinite": _raw_claims(lambda data: data.replace(b'"exp":', b'"exp":Infinity,"was":')),
    "exp not a number": _raw_claims(lambda data: data.replace(b'"exp":', b'"exp":NaN,"was":')),
    "iat missing": _claims(iat=None),
    "iat in the future": _later("iat", 300),
    "iat a text": _claims(iat="now"),
    "nbf in the future": _later("nbf", 300),
    "nbf a text": _claims(nbf="now"),
    "lives for a year": _later("exp", 365 * 86_400),
    "issued before the client's not_before": _claims(sub="renewed", client_id="renewed"),
    "jti missing": _claims(jti=None),
    "jti empty": _claims(jti=""),
    "jti a number": _claims(jti=1),
    "scope missing": _claims(scope=None),
    "scope a list": _claims(scope=["chat"]),
    "scope a number": _claims(scope=1),
    "repeated exp": _raw_claims(_member('"exp":99999999999')),
    "repeated client id": _raw_claims(_member('"client_id":"other"')),
    "repeated tenant": _raw_claims(_member('"tenant":"globex"')),
    "repeated member far inside": _raw_claims(_member('"x":{"a":1,"a":2}')),
    "claims a list": _raw_claims(lambda data: b"[" + data + b"]"),
    "claims a text": _raw_claims(lambda _data: b'"admin"'),
    "claims null": _raw_claims(lambda _data: b"null"),
    "claims empty": _raw_claims(lambda _data: b"{}"),
    "claims no JSON": _raw_claims(lambda _data: b"client_id=acme"),
    "claims of broken UTF-8": _raw_claims(lambda data: data[:-1] + b',"x":"\xc0\xaf"}'),
    "claims with a byte order mark": _raw_claims(lambda data: b"\xef\xbb\xbf" + data),
    "claims in UTF-16": _raw_claims(lambda data: data.decode().encode("utf-16")),
    "claims nested deeply": _raw_claims(_member('"x":' + "[" * 2600 + "]" * 2600)),
    "claims with more behind": _raw_claims(lambda data: data + b"{}"),
    # Signatures.
    "signature missing": lambda f: "Bearer " + f.unsigned(f.header, f.claims) + ".",
    "signature one byte short": _signature(lambda data: data[:-1]),
    "signature one byte long": _signature(lambda data: data + b"\0"),
    "signature with zeros in front of each number": _signature(
        lambda data: b"\0" + data[:32] + b"\0" + data[32:]
    ),
    "signature in DER": _der_signature,
    "signature all zeros": _signature(lambda _data: bytes(64)),
    "r zero": _signature(lambda data: bytes(32) + data[32:]),
    "s zero": _signature(lambda data: data[:32] + bytes(32)),
    "r the order": _signature(lambda data: _number(N) + data[32:]),
    "s the order": _signature(lambda data: data[:32] + _number(N)),
    "s the other one that fits": _high_s,
    "r and s swapped": _signature(lambda data: data[32:] + data[:32]),
    "one bit wrong": _signature(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "another token's signature": _foreign_signature,
    "wider scope, old signature": _tampered(1, scope="chat files llm"),
    "another tenant, old signature": _tampered(1, tenant="globex"),
    "later exp, old signature": _tampered(1, exp=99_999_999_999),
    "another kid, old signature": _tampered(0, kid="foreign"),
    # Spellings.
    "padding": _part(2, lambda text: text + "=="),
    "unused bits set": _part(2, _same_bytes_other_text),
    "standard base64": lambda f: (
        "Bearer "
        + f.valid().replace(f.valid().split(".")[0], base64.b64encode(compact(f.header) + b" ?>~").decode())
    ),
    "space inside": _part(1, lambda text: text[:9] + " " + text[9:]),
    "newline inside": _part(1, lambda text: text[:9] + "\n" + text[9:]),
    "tab inside": _part(1, lambda text: text[:9] + "\t" + text[9:]),
    "null byte behind": _spelled(lambda value: value + "\0"),
    "newline behind": _spelled(lambda value: value + "\n"),
    "dot behind": _spelled(lambda value: value + "."),
    "dot in front": _spelled(lambda value: value.replace(" ", " .")),
    "two dots": _spelled(lambda value: value.replace(".", "..", 1)),
    "two parts": _spelled(lambda value: value.rpartition(".")[0]),
    "four parts": _spelled(lambda value: value + ".x"),
    "five parts, as an encrypted token": _spelled(lambda value: value + ".x.y"),
    "empty parts": _spelled(lambda _value: "Bearer .."),
    "JSON form": _json_form,
    "quoted": _spelled(lambda value: value.replace("Bearer ", 'Bearer "') + '"'),
    "percent encoded": _spelled(lambda value: value.replace(".", "%2E")),
    "full-width letters": _spelled(lambda value: value.replace("e", "\uff45", 1)),
    "too long": lambda f: "Bearer " + f.with_claims(x="y" * 7000),
    "much too long": _spelled(lambda value: value + "A" * 100_000),
    # Schemes.
    "scheme alone": _spelled(lambda _value: "Bearer"),
    "scheme and a space": _spelled(lambda _value: "Bearer "),
    "no scheme": _spelled(lambda value: value.removeprefix("Bearer ")),
    "Basic": _spelled(lambda value: value.replace("Bearer", "Basic")),
    "DPoP": _spelled(lambda value: value.replace("Bearer", "DPoP")),
    "scheme twice": _spelled(lambda value: "Bearer " + value),
    "tab for a space": _spelled(lambda value: value.replace(" ", "\t", 1)),
    "space in front": _spelled(lambda value: " " + value),
    "two tokens": _spelled(lambda value: f"{value}, {value}"),
    "a Dify app key": _spelled(lambda _value: "Bearer app-0123456789abcdef"),
    "another parameter": _spelled(lambda value: value + ", realm=x"),
}
