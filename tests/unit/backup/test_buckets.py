"""Archives in a bucket, by S3's protocol to a server of the tests; and which archives stay."""

import os
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from minio.error import S3Error
from moto.server import ThreadedMotoServer
from urllib3 import HTTPResponse

from dify_kit.backup import buckets, reading, writing
from dify_kit.backup.retention import Retention, expired, name_of, time_of
from dify_kit.errors import KitError, UsageError

BUCKET = "archives"
NOW = datetime(2026, 11, 30, 7, 30, tzinfo=UTC)
NAME = "dify-dev-20261130-073000.dify-backup"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Serve S3's protocol; yield the address."""
    one = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    one.start()
    try:
        host, port = one.get_host_and_port()
        yield f"{host}:{port}"
    finally:
        one.stop()


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket; the credentials are in the environment."""
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "team")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "team-secret")
    made = boto3.resource("s3", endpoint_url=f"http://{server}", region_name="us-east-1").Bucket(BUCKET)
    made.create()
    try:
        yield made
    finally:
        made.objects.delete()
        made.delete()


def url(server: str, key: str, **more: str) -> str:
    given = {"endpoint": server, "disableSSL": "true", "region": "us-east-1"} | more
    return f"s3://{BUCKET}/{key}?{urllib.parse.urlencode(given)}"


def keys(store: Any) -> list[str]:
    return sorted(one.key for one in store.objects.all())


def test_an_archive_appears_when_it_is_complete_and_comes_back(server: str, store: Any) -> None:
    target = writing.target_of(url(server, "nightly/"), "dev", NOW)
    assert isinstance(target, buckets.Place)
    content = os.urandom(buckets.PART_BYTES + (3 << 20))

    with writing.written(target) as stream:
        for at in range(0, len(content), 1 << 20):
            stream.write(content[at : at + (1 << 20)])
        assert keys(store) == []

    assert keys(store) == [f"nightly/{NAME}"]
    assert writing.size_of(target) == len(content)
    with reading.local(str(target)) as path:
        assert path.name == NAME
        assert path.read_bytes() == content
        assert path.parent.stat().st_mode & 0o077 == 0
    assert not path.exists()


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), KitError("x"), ValueError("x")])
@pytest.mark.parametrize("size", [10, buckets.PART_BYTES + 10], ids=["one part", "several parts"])
def test_an_interrupted_backup_leaves_no_object_and_no_parts(
    server: str, store: Any, problem: BaseException, size: int
) -> None:
    target = buckets.parse(url(server, "a"))

    def write() -> None:
        with writing.written(target) as stream:
            stream.write(bytes(size))
            raise problem

    with pytest.raises(type(problem)):
        write()

    assert keys(store) == []
    assert list(store.multipart_uploads.all()) == []


def test_a_single_object_is_named_and_not_replaced(server: str, store: Any) -> None:
    store.put_object(Key="there", Body=b"x")

    assert str(writing.target_of(url(server, "new"), "dev", NOW)) == url(server, "new")
    with pytest.raises(KitError, match="exists already"):
        writing.target_of(url(server, "there"), "dev", NOW)


@pytest.mark.usefixtures("store")
def test_a_bucket_that_is_not_there_is_an_error_before_anything_is_read(server: str) -> None:
    missing = url(server, "").replace(BUCKET, "another-bucket")

    with pytest.raises(KitError, match="there is no bucket another-bucket") as told:
        writing.target_of(missing, "dev", NOW)
    assert "team-secret" not in str(told.value)


@pytest.mark.usefixtures("store")
def test_a_bucket_that_goes_while_it_is_written_is_an_error(server: str) -> None:
    gone = buckets.parse(url(server, "a").replace(BUCKET, "another-bucket"))

    def write() -> None:
        with writing.written(gone) as stream:
            stream.write(b"x")

    with pytest.raises(KitError, match="cannot be written: NoSuchBucket") as told:
        write()
    assert "AWS_ACCESS_KEY_ID" in told.value.hint


@pytest.mark.usefixtures("store")
def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_RETRIES", 0)

    with pytest.raises(KitError, match=r"at 127\.0\.0\.1:9:") as told:
        writing.target_of(url("127.0.0.1:9", ""), "dev", NOW)
    assert "endpoint" in told.value.hint


@pytest.mark.usefixtures("store")
def test_without_credentials_it_is_said(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("HOME", "/nonexistent")

    with pytest.raises(KitError) as told:
        writing.target_of(url(server, ""), "dev", NOW)
    assert "credentials" in told.value.hint


class WritesAlone:
    """A client with credentials that may write and nothing else."""

    @staticmethod
    def refuse(*_arguments: str) -> None:
        answer = HTTPResponse(status=403)
        raise S3Error(answer, "AccessDenied", "Access Denied", "/archives", "1", "1")

    bucket_exists = stat_object = refuse


def test_credentials_that_may_write_alone_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_client", lambda _place: WritesAlone())

    target = writing.target_of("s3://archives/nightly/", "dev", NOW)

    assert isinstance(target, buckets.Place)
    assert target.key == f"nightly/{NAME}"
    assert writing.size_of(target) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("s3://key:secret@bucket/", "names no bucket"),
        ("s3://bucket/?endpiont=x", "unknown parameter endpiont"),
    ],
)
def test_a_place_that_cannot_be_is_refused(given: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        buckets.parse(given)


@pytest.mark.parametrize(
    ("environment", "query", "endpoint", "tls"),
    [
        ({}, "", "s3.amazonaws.com", True),
        ({}, "?endpoint=minio.example.com:9000", "minio.example.com:9000", True),
        ({}, "?endpoint=http://minio:9000", "minio:9000", False),
        ({"AWS_ENDPOINT_URL": "http://minio:9000/"}, "", "minio:9000", False),
        (
            {"AWS_ENDPOINT_URL": "http://x", "AWS_ENDPOINT_URL_S3": "https://s3.example.com"},
            "",
            "s3.example.com",
            True,
        ),
        ({"AWS_ENDPOINT_URL": "https://x"}, "?endpoint=y&disableSSL=true", "y", False),
    ],
)
def test_the_address_comes_from_the_url_or_the_environment(
    environment: dict[str, str], query: str, endpoint: str, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    place = buckets.parse(f"s3://bucket/{query}")

    assert (place.endpoint, place.tls) == (endpoint, tls)


def test_a_prefix_is_no_archive_to_read(server: str) -> None:
    with pytest.raises(UsageError, match="names no archive"), reading.local(url(server, "nightly/")):
        pass


# Which archives stay.


def archives(days: int, stack: str = "dev", hours: int = 24) -> list[str]:
    """Return the names of archives, one each `hours`, of the days before and with NOW."""
    return [name_of(stack, NOW - timedelta(hours=hours * number)) for number in range(days * 24 // hours)]


def test_names_and_times_of_archives_belong_together() -> None:
    assert name_of("dev", NOW) == NAME
    assert time_of(NAME, "dev") == NOW
    for other in (
        "dify-dev-2-20261130-073000.dify-backup",
        f".{NAME}.12.part",
        "dify-dev-20269930-073000.dify-backup",
    ):
        assert time_of(other, "dev") is None
    assert time_of("dify-dev-2-20261130-073000.dify-backup", "dev-2") == NOW


def test_without_a_number_all_stay() -> None:
    assert expired(archives(40), "dev", Retention()) == []


def test_the_newest_of_each_day_week_and_month_stays() -> None:
    names = archives(100, hours=12)

    gone = expired(names, "dev", Retention(daily=7, weekly=4, monthly=3))

    kept = sorted({str(time_of(name, "dev"))[:13] for name in set(names) - set(gone)}, reverse=True)
    assert kept == [
        "2026-11-30 07",
        "2026-11-29 19",
        "2026-11-28 19",
        "2026-11-27 19",
        "2026-11-26 19",
        "2026-11-25 19",
        "2026-11-24 19",
        "2026-11-22 19",
        "2026-11-15 19",
        "2026-10-31 19",
        "2026-09-30 19",
    ]
    assert gone == sorted(gone)


def test_a_pause_in_the_backups_deletes_nothing_that_is_needed() -> None:
    old = [name_of("dev", NOW - timedelta(days=400 + number)) for number in range(3)]

    assert expired(old, "dev", Retention(daily=7)) == []
    assert expired([*old, NAME], "dev", Retention(daily=2)) == sorted(old)[:2]


def test_the_newest_stays_whatever_the_numbers_are() -> None:
    assert expired([NAME], "dev", Retention(monthly=1)) == []
    assert NAME not in expired(archives(3), "dev", Retention(weekly=1))


def test_archives_of_other_stacks_and_other_files_are_left_alone(tmp_path: Path) -> None:
    mine, others = archives(5), [*archives(5, "dev-2"), *archives(5, "prod"), "notes.txt", f".{NAME}.1.part"]
    for name in (*mine, *others):
        (tmp_path / name).write_text("x")

    writing.delete_expired(tmp_path / mine[0], "dev", Retention(daily=2))

    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([*mine[:2], *others])


def test_expired_objects_of_a_bucket_are_deleted_and_those_of_other_prefixes_are_not(
    server: str, store: Any
) -> None:
    mine = archives(5)
    others = [f"nightly/{mine[4]}/deeper", f"weekly/{mine[4]}", mine[4], "nightly/notes.txt"]
    for key in (*(f"nightly/{name}" for name in mine), *others):
        store.put_object(Key=key, Body=b"x")

    writing.delete_expired(buckets.parse(url(server, f"nightly/{mine[0]}")), "dev", Retention(daily=2))

    assert keys(store) == sorted([*(f"nightly/{name}" for name in mine[:2]), *others])


@pytest.mark.parametrize("given", ["-", "archive.dify-backup", "s3://bucket/one"])
def test_retention_needs_a_directory(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match="need a directory"):
        writing.refuse_retention(given)


@pytest.mark.parametrize("given", ["", ".", "s3://bucket", "s3://bucket/nightly/"])
def test_retention_takes_a_directory_or_a_prefix(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    writing.refuse_retention(given)
