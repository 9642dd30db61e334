"""`dify:tls`: what is accepted, what follows from it, and one clear error for everything that cannot work."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pulumi
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from infra.settings import certificates
from infra.settings.program import load
from support.certificates import DAY, Pair, issue, new_key, pem_of_key
from support.configuration import configure, resolved, settings

HOST = "dify.example.com"
NOW = datetime.now(UTC)
ACME: dict[str, Any] = {"mode": "acme", "acme": {"email": "ops@example.com", "agreeTerms": True}}
REACHABLE: dict[str, Any] = {"publicUrl": f"https://{HOST}", "bindAddress": "0.0.0.0", "tls": ACME}  # noqa: S104  # the setting under test
CA = issue(ca=True, name="ca")
MIDDLE = issue(ca=True, name="middle", issuer=CA)


def told(plain: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> list[str]:
    configure(plain, secrets)
    with pytest.raises(pulumi.RunError) as caught:
        load(pulumi.Config("dify"), "unit")
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def with_files(pair: Pair, *more: Pair, key: str | None = None) -> list[str]:
    """Return the problems of a certificate, followed by others, with its key or another one."""
    chain = "".join(one.pem for one in (pair, *more))
    return told(
        {"publicUrl": f"https://{HOST}", "tls": {"mode": "files"}},
        {"tlsCertificate": chain, "tlsKey": key or pair.key_pem},
    )


@pytest.mark.parametrize(
    ("plain", "key", "reason"),
    [
        ({"tls": {"mode": "on"}}, "tls.mode", "off, selfsigned, files, acme"),
        (
            {"tls": {"mode": "cert-manager", "issuer": {"name": "ca"}}},
            "tls.mode",
            "set platform to kubernetes",
        ),
        ({"tls": {"modus": "off"}}, "tls.modus", "did you mean tls.mode"),
        ({"tls": "selfsigned"}, "tls", "not an object"),
        ({"tls": {"hstsSeconds": 300}}, "tls.hstsSeconds", "turn TLS on"),
        ({"tls": {"mode": "selfsigned", "hstsSeconds": -1}}, "tls.hstsSeconds", "0 to 63072000"),
        ({"tls": {"mode": "selfsigned", "redirect": "yes"}}, "tls.redirect", "true or false"),
        ({"tls": {"mode": "selfsigned"}, "httpsPort": 8080}, "httpsPort", "use another port for TLS"),
        ({"tls": {"mode": "selfsigned"}, "httpsPort": 0}, "httpsPort", "1 to 65535"),
        (
            {"tls": {"mode": "selfsigned"}, "publicUrl": "http://dify.example.com"},
            "publicUrl",
            "start it with https://",
        ),
        ({**REACHABLE, "bindAddress": "127.0.0.1"}, "bindAddress", "cannot reach it"),
        ({**REACHABLE, "bindAddress": "::1"}, "bindAddress", "cannot reach it"),
        ({**REACHABLE, "bindAddress": "192.168.1.5"}, "bindAddress", "cannot reach it"),
        ({**REACHABLE, "publicUrl": "https://localhost"}, "publicUrl", "no CA issues a certificate"),
        ({**REACHABLE, "publicUrl": "https://192.0.2.1"}, "publicUrl", "no CA issues a certificate"),
        ({**REACHABLE, "publicUrl": "https://[2001:db8::1]"}, "publicUrl", "no CA issues a certificate"),
        ({**REACHABLE, "serverNames": ["localhost"]}, "publicUrl", "no CA issues a certificate"),
        (
            {**REACHABLE, "tls": {"mode": "acme", "acme": {"agreeTerms": True}}},
            "tls.acme.email",
            "is not an e-mail address",
        ),
        (
            {**REACHABLE, "tls": {"mode": "acme", "acme": {"email": "ops@example.com"}}},
            "tls.acme.agreeTerms",
            "set it to true",
        ),
        (
            {**REACHABLE, "tls": {**ACME, "acme": {**ACME["acme"], "directory": "http://ca.example/dir"}}},
            "tls.acme.directory",
            "is not an https URL",
        ),
        (
            {**REACHABLE, "tls": {**ACME, "acme": {**ACME["acme"], "caFile": "/no/such/file"}}},
            "tls.acme.caFile",
            "root file",
        ),
        (
            {**REACHABLE, "tls": {**ACME, "acme": {**ACME["acme"], "mail": "a@b.example"}}},
            "tls.acme.mail",
            "did you mean tls.acme.email",
        ),
    ],
)
def test_malformed_setting_gives_one_clear_error(plain: dict[str, Any], key: str, reason: str) -> None:
    problems = told(plain)

    assert [problem.split(":")[1] for problem in problems] == [key], problems
    assert reason in problems[0]


def test_off_is_the_default_also_when_yaml_reads_it_as_false() -> None:
    assert settings().tls.mode == "off"
    assert settings({"tls": {"mode": False}}).tls.mode == "off"


def test_tls_gives_the_stack_its_public_address() -> None:
    assert settings({"tls": {"mode": "selfsigned"}}).public_url == "https://localhost:8443"
    assert settings({"tls": {"mode": "selfsigned"}, "httpsPort": 443}).public_url == "https://localhost"


def test_every_origin_that_dify_hears_of_is_https_with_tls() -> None:
    found = settings({"tls": {"mode": "selfsigned"}})

    assert set(vars(found.urls).values()) == {"https://localhost:8443"}
    assert found.cors.origins("console") == ("https://localhost:8443",)


def test_selfsigned_without_its_seed_says_how_to_set_one() -> None:
    problems = told({"tls": {"mode": "selfsigned"}}, {"tlsSeed": ""})

    assert problems == [
        "dify:tlsSeed: the secret is not set; `dify-kit set tlsSeed --generate --stack unit` makes it"
    ]


def test_stack_without_tls_needs_no_seed() -> None:
    assert settings({}, {"tlsSeed": ""}).tls.certificate is None


def test_files_need_both_secrets() -> None:
    problems = told({"publicUrl": f"https://{HOST}", "tls": {"mode": "files"}})

    assert [problem.split(":")[1] for problem in problems] == ["tlsCertificate", "tlsKey"]


def test_key_in_plain_text_is_refused_without_showing_it() -> None:
    pair = issue([HOST])
    configure(
        {"publicUrl": f"https://{HOST}", "tls": {"mode": "files"}},
        {"tlsCertificate": pair.pem, "tlsKey": pair.key_pem},
    )
    config = dict(pulumi.runtime.config.CONFIG.get())
    secret = [key for key in config if key != "dify:tlsKey"]
    pulumi.runtime.set_all_config(config, secret)

    with pytest.raises(pulumi.RunError, match="dify:tlsKey: is stored in plain text") as caught:
        load(pulumi.Config("dify"), "unit")

    assert pair.key_pem.splitlines()[1] not in str(caught.value)


def test_fitting_pair_is_taken_and_its_key_is_a_secret() -> None:
    leaf = issue([HOST, "www.example.com"], issuer=MIDDLE)
    found = settings(
        {"publicUrl": f"https://{HOST}", "tls": {"mode": "files"}},
        {"tlsCertificate": leaf.pem + MIDDLE.pem, "tlsKey": leaf.key_pem},
    ).tls

    assert found.certificate
    assert found.certificate.chain == leaf.pem + MIDDLE.pem
    assert found.certificate.not_after == leaf.certificate.not_valid_after_utc
    assert found.key is not None
    assert resolved({"key": found.key}) == {"key": leaf.key_pem}


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())]
)
def test_keys_that_browsers_take_are_taken(key: Any) -> None:
    assert certificates.problems(issue([HOST], key=key).pem, pem_of_key(key), [HOST], NOW) == []


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),  # noqa: S505  # what is refused
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_keys_that_browsers_refuse_are_refused(key: Any) -> None:
    problems = with_files(issue([HOST], key=key))

    assert len(problems) == 1
    assert problems[0].startswith("dify:tlsKey: is of a kind or size that browsers do not take; use RSA")


def test_key_of_another_certificate_is_refused() -> None:
    problems = with_files(issue([HOST]), key=pem_of_key(new_key()))

    assert problems == [
        (
            "dify:tlsKey: does not belong to the certificate; set tlsCertificate and tlsKey from the same pair: "
            "`dify-kit set tlsKey --stack unit < privkey.pem`"
        )
    ]


def test_encrypted_key_is_refused() -> None:
    pair = issue([HOST])
    problems = with_files(pair, key=pem_of_key(pair.key, "a passphrase"))

    assert len(problems) == 1
    assert "dify:tlsKey: is encrypted with a passphrase" in problems[0]


@pytest.mark.parametrize(
    "text", ["no key at all", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_text_that_is_no_key_is_refused_and_not_shown(text: str) -> None:
    problems = with_files(issue([HOST]), key=text)

    assert len(problems) == 1
    assert problems[0].startswith("dify:tlsKey: holds no private key in PEM")
    assert "AAAA" not in problems[0]


def test_text_that_is_no_certificate_is_refused() -> None:
    problems = told(
        {"publicUrl": f"https://{HOST}", "tls": {"mode": "files"}},
        {"tlsCertificate": "nothing", "tlsKey": issue([HOST]).key_pem},
    )

    assert len(problems) == 1
    assert problems[0].startswith("dify:tlsCertificate: holds no certificate in PEM")


def test_chain_in_the_wrong_order_is_refused() -> None:
    leaf = issue([HOST], issuer=MIDDLE)
    chain = MIDDLE.pem + leaf.pem
    problems = certificates.problems(chain, leaf.key_pem, [], NOW)

    assert [problem.why for problem in problems] == [
        "does not begin with the server's own certificate",
        "certificate 1 of the chain was not issued by the one after it",
    ]


def test_certificate_that_does_not_belong_to_the_chain_is_refused() -> None:
    problems = with_files(issue([HOST], issuer=MIDDLE), MIDDLE, issue(ca=True, name="stranger"))

    assert len(problems) == 1
    assert "certificate 2 of the chain was not issued by the one after it" in problems[0]


def test_issuer_of_the_same_name_with_another_key_is_noticed() -> None:
    assert "was not issued by" in with_files(issue([HOST], issuer=MIDDLE), issue(ca=True, name="middle"))[0]


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (-60 * DAY, -timedelta(seconds=5), "expired on"),
        (DAY, 60 * DAY, "is valid only from"),
    ],
)
def test_certificate_out_of_its_time_is_refused(start: timedelta, end: timedelta, reason: str) -> None:
    problems = with_files(issue([HOST], start=NOW + start, end=NOW + end))

    assert len(problems) == 1
    assert f"dify:tlsCertificate: the server's certificate {reason}" in problems[0]


def test_expired_issuer_is_noticed() -> None:
    old = issue(ca=True, name="old", issuer=CA, start=NOW - 60 * DAY, end=NOW - DAY)

    assert "certificate 2 of the chain expired on" in with_files(issue([HOST], issuer=old), old)[0]


@pytest.mark.parametrize(
    ("named", "host", "covered"),
    [
        ([HOST], HOST, True),
        (["*.example.com"], HOST, True),
        (["*.example.com"], "a.b.example.com", False),
        (["*.example.com"], "example.com", False),
        (["example.com"], HOST, False),
        (["DIFY.example.com"], HOST, True),
        (["192.0.2.1"], "192.0.2.1", True),
        (["192.0.2.1"], "192.0.2.2", False),
        (["2001:db8::1"], "[2001:db8:0::1]", True),
        ([], HOST, False),
    ],
)
def test_names_have_to_be_covered(named: list[str], host: str, covered: bool) -> None:
    pair = issue(named, name=host[:60])
    problems = certificates.problems(pair.pem, pair.key_pem, [host], NOW)

    assert (problems == []) == covered
    assert all(f"does not cover {host}" in problem.why for problem in problems)


def test_every_host_of_the_stack_has_to_be_covered() -> None:
    pair = issue([HOST])
    problems = told(
        {
            "publicUrl": f"https://{HOST}",
            "urls": {"app": "https://chat.example.com"},
            "serverNames": ["old.example.com"],
            "tls": {"mode": "files"},
        },
        {"tlsCertificate": pair.pem, "tlsKey": pair.key_pem},
    )

    assert len(problems) == 2
    assert "chat.example.com: it names dify.example.com" in problems[0]
    assert "old.example.com" in problems[1]


def test_private_ca_may_check_a_private_address(tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    root.write_text(CA.pem)
    own = {**ACME["acme"], "directory": "https://ca.internal/acme/directory", "caFile": str(root)}

    found = settings({**REACHABLE, "bindAddress": "192.168.1.5", "tls": {"mode": "acme", "acme": own}}).tls

    assert found.acme is not None
    assert found.acme.ca == CA.pem
    assert found.certificate is None


def test_private_ca_cannot_check_loopback_either() -> None:
    own = {**ACME["acme"], "directory": "https://ca.internal/acme/directory"}

    problems = told({**REACHABLE, "bindAddress": "127.0.0.1", "tls": {"mode": "acme", "acme": own}})

    assert [problem.split(":")[1] for problem in problems] == ["bindAddress"]
