"""Client secrets: only generated ones, kept as hashes."""

import subprocess
import sys
import time

import pytest

from dify_gateway import client_secrets

SECRET = client_secrets.generate_secret()


def test_secrets_are_long_and_different() -> None:
    made = {client_secrets.generate_secret() for _ in range(100)}

    assert len(made) == 100
    assert all(client_secrets.SECRET.fullmatch(secret) for secret in made)


def test_hashes_differ_and_fit() -> None:
    hashes = [client_secrets.hash_secret(SECRET) for _ in range(2)]

    assert hashes[0] != hashes[1]
    for stored in hashes:
        assert SECRET not in stored
        assert stored.startswith("sha256-v1$")
        assert client_secrets.matches(SECRET, (client_secrets.parse_hash(stored),))


@pytest.mark.parametrize(
    "other",
    ["", "x", SECRET + "x", SECRET[:-1], SECRET.swapcase(), "\ud800", "x" * 100_000],
    # Secrets are new each time: as names of tests, workers would not know each other's.
    ids=["empty", "one letter", "longer", "shorter", "other case", "surrogate", "huge"],
)
def test_other_secrets_do_not_fit(other: str) -> None:
    stored = client_secrets.parse_hash(client_secrets.hash_secret(SECRET))

    assert not client_secrets.matches(other, (stored,))


def test_nothing_fits_nobody() -> None:
    assert not client_secrets.matches(SECRET, ())
    assert not client_secrets.matches("", ())


@pytest.mark.parametrize(
    "chosen", ["", "password", "dks_", "dks_" + "a" * 42, "dks_" + "a" * 44, "dks_" + "!" * 43]
)
def test_chosen_secrets_are_refused_without_being_told(chosen: str) -> None:
    with pytest.raises(client_secrets.SecretError) as problem:
        client_secrets.hash_secret(chosen)

    assert not chosen or chosen not in str(problem.value) or chosen == "dks_"


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "x",
        "md5$a$b",
        "sha256-v1$a",
        "sha256-v1$a$b",
        "sha256-v1$!!$!!",
        "sha256-v1$" + "A" * 22 + "$" + "A" * 42,
    ],
)
def test_other_formats_are_refused(stored: str) -> None:
    with pytest.raises(client_secrets.SecretError):
        client_secrets.parse_hash(stored)


def test_comparing_is_quick_enough_for_the_token_endpoint() -> None:
    stored = (client_secrets.parse_hash(client_secrets.hash_secret(SECRET)),)
    started = time.process_time()

    for _ in range(1000):
        client_secrets.matches(SECRET, stored)

    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("module", ["client_secrets", "keys"])
def test_the_kit_needs_no_web_framework_for_it(module: str) -> None:
    script = (
        f"import sys, dify_gateway.{module}; "
        "print(sorted({'flask', 'authlib', 'redis', 'limits', 'gunicorn'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=True
    )

    assert done.stdout.strip() == "[]"
