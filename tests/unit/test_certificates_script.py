"""The script in certbot's container: what it publishes, when it complains, and how often it bothers a CA."""

import json
import stat
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from infra.container_scripts import certificates
from infra.container_scripts.certificates import Place, attempt, place, prepare, problem_of
from support.certificates import DAY, Pair, issue

NAMES = ("dify.example.com", "chat.example.com")
URL = "https://ca.example/directory"


@pytest.fixture
def where(tmp_path: Path) -> Place:
    for name in ("lineages", "published", "challenges", "scratch"):
        (tmp_path / name).mkdir()
    return place(
        {
            "KIT_NAMES": ",".join(NAMES),
            "KIT_EMAIL": "ops@example.com",
            "KIT_DIRECTORY": URL,
            "KIT_LINEAGES": str(tmp_path / "lineages"),
            "KIT_PUBLISHED": str(tmp_path / "published"),
            "KIT_CHALLENGES": str(tmp_path / "challenges"),
            "KIT_SCRATCH": str(tmp_path / "scratch"),
            "KIT_UID": str(tmp_path.stat().st_uid),
            "KIT_INTERVAL_SECONDS": "43200",
        }
    )


class Certbot:
    """Takes certbot's place: writes a lineage, or fails with words."""

    def __init__(self, where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.where = where
        self.commands: list[list[str]] = []
        self.pair: Pair | None = issue(NAMES)
        self.words = ""
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, command: Sequence[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        self.commands.append(list(command))
        if self.pair is None:
            return subprocess.CompletedProcess(command, 1, self.words, "")
        live = self.where.lineages / "live" / self.where.lineage
        live.mkdir(parents=True, exist_ok=True)
        (live / "fullchain.pem").write_text(self.pair.pem)
        (live / "privkey.pem").write_text(self.pair.key_pem)
        return subprocess.CompletedProcess(command, 0, "Successfully received certificate.", "")


@pytest.fixture
def certbot(where: Place, monkeypatch: pytest.MonkeyPatch) -> Certbot:
    return Certbot(where, monkeypatch)


def served(where: Place) -> x509.Certificate:
    return x509.load_pem_x509_certificate((where.published / "current" / "fullchain.pem").read_bytes())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nginx_can_start_before_the_first_certificate(where: Place) -> None:
    assert prepare(where) == 0

    names = served(where).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names.get_values_for_type(x509.DNSName)) == NAMES
    assert served(where).not_valid_after_utc < datetime.now(UTC) + timedelta(days=8)
    assert mode(where.published / "current" / "key.pem") == 0o400
    assert problem_of(where, time.time()) == f"no certificate of {URL} yet"


@pytest.mark.usefixtures("certbot")
def test_preparing_again_leaves_a_certificate_alone(where: Place) -> None:
    prepare(where)
    attempt(where)
    serial = served(where).serial_number

    prepare(where)

    assert served(where).serial_number == serial


def test_certificate_takes_the_placeholders_place(where: Place, certbot: Certbot) -> None:
    prepare(where)

    assert attempt(where)

    assert certbot.pair
    assert served(where) == certbot.pair.certificate
    assert mode(where.published / "current" / "key.pem") == 0o400
    assert problem_of(where, time.time()) == ""
    assert certificates.check(where) == 0


@pytest.mark.usefixtures("certbot")
def test_same_certificate_is_published_once(where: Place) -> None:
    attempt(where)
    target, changed = (where.published / "current").readlink(), where.published.stat().st_mtime_ns

    attempt(where)

    assert (where.published / "current").readlink() == target
    assert where.published.stat().st_mtime_ns == changed


def test_only_the_certificate_before_is_kept(where: Place, certbot: Certbot) -> None:
    prepare(where)
    pairs = [issue(NAMES) for _ in range(4)]
    for certbot.pair in pairs:
        attempt(where)

    kept = [path for path in where.published.iterdir() if path.is_dir() and not path.is_symlink()]
    assert len(kept) == 2
    assert served(where) == pairs[-1].certificate


@pytest.mark.usefixtures("certbot")
def test_link_never_points_nowhere_while_a_certificate_is_published(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(where)
    seen = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        before = (where.published / "current" / "key.pem").is_file()
        done = rename(self, target)
        seen.append((before, (where.published / "current" / "key.pem").is_file()))
        return done

    monkeypatch.setattr(Path, "rename", watched)
    attempt(where)

    assert seen == [(True, True), (True, True)]


def test_failure_is_kept_with_the_cas_words(where: Place, certbot: Certbot) -> None:
    prepare(where)
    certbot.pair = None
    certbot.words = (
        "Saving debug log to /tmp/x\n- - - - - -\nCertbot failed to authenticate some domains\n"
        "  Domain: dify.example.com\n  Type:   connection\n  Detail: 203.0.113.1: refused\n\nAsk for help.\n"
    )

    assert not attempt(where)

    assert problem_of(where, time.time()) == f"no certificate of {URL} yet; Detail: 203.0.113.1: refused"
    assert certificates.check(where) == certificates.HOPELESS


def test_failure_is_news_for_a_moment(
    where: Place, certbot: Certbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(where)
    certbot.pair = None
    attempt(where)
    later = time.time() + certificates.FRESH_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)

    assert certificates.check(where) == 1


def test_failed_renewal_leaves_the_certificate_and_is_no_news_while_it_lasts(
    where: Place, certbot: Certbot
) -> None:
    attempt(where)
    certbot.pair = None

    assert not attempt(where)
    assert problem_of(where, time.time()) == ""
    certbot.pair = issue(NAMES)
    assert attempt(where)
    assert not where.failure.exists()


def test_certificate_near_its_end_is_a_problem(where: Place, certbot: Certbot) -> None:
    now = datetime.now(UTC)
    certbot.pair = issue(NAMES, start=now - 80 * DAY, end=now + 10 * DAY)
    attempt(where)

    assert "and was not renewed" in problem_of(where, now.timestamp())
    assert problem_of(where, (now - 20 * DAY).timestamp()) == ""


@pytest.mark.usefixtures("certbot")
def test_new_name_and_another_ca_wait_for_their_certificate(where: Place) -> None:
    attempt(where)
    more = Place(**{**vars(where), "names": (*NAMES, "new.example.com")})
    other = Place(**{**vars(where), "directory": "https://staging.example/directory"})

    assert problem_of(more, time.time()) == "the certificate does not name new.example.com yet"
    assert problem_of(other, time.time()) == "no certificate of https://staging.example/directory yet"
    assert other.lineage != where.lineage


def test_certbot_is_asked_for_what_is_due_and_forced_only_by_hand(where: Place, certbot: Certbot) -> None:
    attempt(where)
    certificates.renew(where)

    due, forced = certbot.commands
    assert "--keep-until-expiring" in due
    assert "--force-renewal" not in due
    assert "--force-renewal" in forced
    for command in (due, forced):
        assert [command[at + 1] for at, word in enumerate(command) if word == "--domain"] == list(NAMES)
        assert command[command.index("--server") + 1] == URL
        assert command[command.index("--webroot-path") + 1] == str(where.challenges)


def test_certbot_that_hangs_is_a_failure(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: Sequence[str], timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)

    assert not attempt(where)
    assert "did not finish within 300 s" in problem_of(where, time.time())


def test_a_ca_is_asked_at_most_five_times_in_the_first_hour() -> None:
    starts = [0.0]
    for failures in range(1, 10):
        starts.append(starts[-1] + certificates.pauses(failures))

    assert len([start for start in starts if start < 3600]) <= 5
    assert certificates.pauses(40) == certificates.LONGEST_PAUSE


def test_loop_gets_sleeps_and_starts_over(
    where: Place, certbot: Certbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        certbot.pair = None if len(slept) == 1 else issue(NAMES)
        if len(slept) == 3:
            raise SystemExit(0)

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(SystemExit):
        certificates.run(where)

    assert len(certbot.commands) == 3
    assert 43200 <= slept[0] <= 43200 * 1.1
    assert 120 <= slept[1] <= 132
    assert slept[2] >= 43200


@pytest.mark.usefixtures("certbot")
def test_facts_are_what_the_certificate_says(where: Place) -> None:
    attempt(where)

    facts = json.loads((where.published / "current" / "facts.json").read_text())
    assert facts["names"] == list(NAMES)
    assert facts["until"] == served(where).not_valid_after_utc.timestamp()
    assert facts["directory"] == URL
