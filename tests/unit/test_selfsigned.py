"""The certificates of `dify:tls.mode selfsigned`: stable, renewed in time, and good for the stack's names only."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from infra.settings.selfsigned import EPOCH, PERIOD, SelfSigned, issue

SEED = "0123456789abcdef" * 4
NOW = datetime(2026, 11, 25, 7, 0, tzinfo=UTC)
HOSTS = ("dify.example.com", "192.0.2.1", "[2001:db8::1]")


def issued(now: datetime = NOW, *, seed: str = SEED, hosts: tuple[str, ...] = HOSTS) -> SelfSigned:
    return issue(seed, "unit", hosts, now)


def verified(ca: str, leaf: str, directory: Path, *check: str) -> bool:
    """Return whether OpenSSL, at its strictest, takes the certificate for a server's."""
    (directory / "ca.pem").write_text(ca)
    (directory / "leaf.pem").write_text(leaf)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-attime"]
    command += [str(int(NOW.timestamp())), "-CAfile", str(directory / "ca.pem"), *check]
    done = subprocess.run(
        [*command, str(directory / "leaf.pem")], check=False, capture_output=True, timeout=120
    )
    return done.returncode == 0


def test_same_secret_names_and_period_give_the_same_bytes() -> None:
    assert issued() == issued(NOW + timedelta(hours=1))


def test_another_seed_gives_other_keys_and_another_ca() -> None:
    other = issued(seed=SEED[::-1])

    assert other.key != issued().key
    assert other.ca != issued().ca


@given(st.datetimes(datetime(2026, 1, 1), datetime(2040, 1, 1)))  # noqa: DTZ001  # made UTC below
def test_certificate_is_valid_on_every_day_and_for_months_to_come(day: datetime) -> None:
    now = day.replace(tzinfo=UTC)
    made = issued(now)
    leaf = x509.load_pem_x509_certificate(made.certificate.chain.encode())
    ca = x509.load_pem_x509_certificate(made.ca.encode())

    assert leaf.not_valid_before_utc < now
    assert leaf.not_valid_after_utc > now + timedelta(days=270)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(days=366)
    assert ca.not_valid_after_utc > leaf.not_valid_after_utc


def test_next_period_renews_certificate_and_key_and_keeps_the_ca() -> None:
    next_period = EPOCH + ((NOW - EPOCH) // PERIOD + 1) * PERIOD
    before, after = issued(next_period - timedelta(seconds=1)), issued(next_period)

    assert after.certificate.fingerprint != before.certificate.fingerprint
    assert after.key != before.key
    assert after.ca == before.ca


@pytest.mark.parametrize(
    "check",
    [
        ("-verify_hostname", "dify.example.com"),
        ("-verify_ip", "192.0.2.1"),
        ("-verify_ip", "2001:db8::1"),
    ],
)
def test_openssl_takes_it_for_each_name(check: tuple[str, str], tmp_path: Path) -> None:
    made = issued()

    assert verified(made.ca, made.certificate.chain, tmp_path, *check)
    assert not verified(made.ca, made.certificate.chain, tmp_path, check[0], "other.example.com")


@pytest.mark.parametrize("hosts", [("localhost", "127.0.0.1", "[::1]"), ("a.example",), ("[::1]",)])
def test_every_mixture_of_names_and_addresses_works(hosts: tuple[str, ...], tmp_path: Path) -> None:
    made = issued(hosts=hosts)

    assert verified(made.ca, made.certificate.chain, tmp_path)


def test_trusted_ca_stays_good_when_names_are_taken_away(tmp_path: Path) -> None:
    assert verified(issued().ca, issued(hosts=HOSTS[:1]).certificate.chain, tmp_path)


@pytest.mark.parametrize("hosts", [("bank.example",), ("192.0.2.99",)])
def test_trusted_ca_is_good_for_no_other_names(hosts: tuple[str, ...], tmp_path: Path) -> None:
    # Same seed, so the same key of the CA signed it; only the constraint in the trusted CA can refuse.
    for trusted in (issued(), issued(hosts=("dify.example.com",)), issued(hosts=("[2001:db8::1]",))):
        assert not verified(trusted.ca, issued(hosts=hosts).certificate.chain, tmp_path)
