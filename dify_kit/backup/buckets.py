"""Archives in a bucket of Amazon S3 or of a server that speaks its protocol.

A place is `s3://BUCKET[/PREFIX/][?endpoint=HOST[:PORT]&region=NAME&disableSSL=true]`, with the parameters of Pulumi's
own backend. Credentials and, without `endpoint`, the address come from the variables and the files of Amazon's tools.
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, urlsplit

import urllib3
from minio import Minio
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
)
from minio.error import MinioException, S3Error
from urllib3 import BaseHTTPResponse

from dify_kit.errors import KitError, UsageError
from dify_kit.talk import say

SCHEME = "s3://"
PART_BYTES = 32 << 20
"""Of a multi-part upload, whose 10,000 parts limit an archive to 312 GiB; one part is in memory at a time."""
_ENDPOINT = "s3.amazonaws.com"
_PARAMETERS = frozenset({"endpoint", "region", "disableSSL", "s3ForcePathStyle"})
_COPY_BYTES, _REPORT_SECONDS = 1 << 20, 5.0
_CONNECT_SECONDS, _READ_SECONDS, _RETRIES = 20, 120, 4
_BROKEN = (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError)
_ABSENT = frozenset({"NoSuchKey", "NoSuchObject"})
_UNKNOWN = frozenset({"AccessDenied"})


class CutOffError(Exception):
    """Ends an upload whose content did not come to its end; what was sent is discarded."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An object of a bucket, or a prefix of objects: then `key` is empty or ends with a slash."""

    bucket: str
    key: str
    endpoint: str = _ENDPOINT
    region: str = ""
    tls: bool = True
    query: str = ""

    def __str__(self) -> str:
        """Return the place as it is given to commands."""
        return f"{SCHEME}{self.bucket}/{self.key}{f'?{self.query}' if self.query else ''}"

    @property
    def prefix(self) -> bool:
        """Whether it names no single object."""
        return not self.key or self.key.endswith("/")

    def object(self, name: str) -> "Place":
        """Return an object of this prefix."""
        return replace(self, key=f"{self.key}{name}")


def is_place(text: str) -> bool:
    """Whether a text names a place in a bucket."""
    return text.startswith(SCHEME)


def parse(text: str) -> Place:
    """Return the place that a text names. Raises UsageError."""
    parts = urlsplit(text)
    given = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    if unknown := sorted(given.keys() - _PARAMETERS):
        raise UsageError(
            f"{text}: unknown parameter {', '.join(unknown)}", f"use {', '.join(sorted(_PARAMETERS))}"
        )
    if not parts.netloc or "@" in parts.netloc or parts.fragment:
        raise UsageError(
            f"{text} names no bucket",
            f"{SCHEME}BUCKET/PREFIX/, with credentials in AWS_ACCESS_KEY_ID and others",
        )
    address = (
        given.get("endpoint")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL", "")
    )
    plain = given.get("disableSSL") == "true" or address.startswith("http://")
    return Place(
        bucket=parts.netloc,
        key=parts.path.lstrip("/"),
        endpoint=address.removeprefix("http://").removeprefix("https://").rstrip("/") or _ENDPOINT,
        region=given.get("region")
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION", ""),
        tls=not plain,
        query=parts.query,
    )


def _client(place: Place) -> Minio:
    providers: list[Provider] = [EnvAWSProvider(), AWSConfigProvider()]
    if place.endpoint == _ENDPOINT:
        providers.append(IamAwsProvider())
    return Minio(
        place.endpoint,
        secure=place.tls,
        region=place.region or None,
        credentials=ChainedProvider(providers),
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            retries=urllib3.Retry(total=_RETRIES, backoff_factor=0.5, status_forcelist=[500, 502, 503, 504]),
        ),
    )


@contextlib.contextmanager
def _explained(place: Place, what: str) -> Iterator[None]:
    try:
        yield
    except S3Error as problem:
        raise KitError(
            f"{place} {what}: {problem.code}: {problem.message}",
            "check bucket, region and the rights of the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or the "
            "profile of AWS_PROFILE)",
        ) from None
    except _BROKEN as problem:
        raise KitError(
            f"{place} {what} at {place.endpoint}: {problem}",
            "check the address (endpoint=HOST:PORT in the URL, or AWS_ENDPOINT_URL_S3) and the credentials",
        ) from None


def exists(place: Place) -> bool:
    """Whether an object exists. Raises KitError where there is no such bucket, or no answer.

    Credentials that may write alone get no answer to it, and an archive's name has its time.
    """
    with _explained(place, "cannot be looked up"):
        client = _client(place)
        try:
            if not client.bucket_exists(place.bucket):
                raise KitError(
                    f"{place}: there is no bucket {place.bucket} at {place.endpoint}", "make it first"
                )
            client.stat_object(place.bucket, place.key)
        except S3Error as problem:
            if problem.code in _ABSENT | _UNKNOWN:
                return False
            raise
    return True


def names(place: Place) -> list[str]:
    """Return the names of the objects of a prefix, those below a further slash left out. Raises KitError."""
    with _explained(place, "cannot be listed"):
        listed = list(_client(place).list_objects(place.bucket, prefix=place.key))
    return [str(one.object_name).removeprefix(place.key) for one in listed if not one.is_dir]


def size(place: Place) -> int | None:
    """Return the bytes of an object; None for credentials that may write alone. Raises KitError."""
    with _explained(place, "cannot be looked up"):
        try:
            return int(_client(place).stat_object(place.bucket, place.key).size or 0)
        except S3Error as problem:
            if problem.code in _UNKNOWN:
                return None
            raise


def delete(place: Place) -> None:
    """Delete an object. Raises KitError."""
    with _explained(place, "cannot be deleted"):
        _client(place).remove_object(place.bucket, place.key)


class _Source:
    """What the upload reads: the end of the pipe is the end of the object only once the content is complete."""

    def __init__(self, stream: IO[bytes], complete: threading.Event) -> None:
        self._stream = stream
        self._complete = complete

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        if not block and not self._complete.is_set():
            raise CutOffError
        return block


@contextlib.contextmanager
def writing(place: Place) -> Iterator[IO[bytes]]:
    """Yield a stream whose content becomes an object at the end of the block. Raises KitError.

    After an exception of the block there is no object: an upload of parts appears with its end alone.
    """
    reading, writable = os.pipe()
    complete, problems = threading.Event(), list[BaseException]()

    def upload() -> None:
        try:
            with (
                os.fdopen(reading, "rb", buffering=1 << 20) as stream,
                _explained(place, "cannot be written"),
            ):
                _client(place).put_object(
                    place.bucket,
                    place.key,
                    _Source(stream, complete),  # type: ignore[arg-type]  # it needs `read` alone
                    length=-1,
                    part_size=PART_BYTES,
                    num_parallel_uploads=1,
                )
        except BaseException as problem:  # noqa: BLE001  # raised in the caller's thread
            problems.append(problem)

    worker = threading.Thread(target=upload, daemon=True)
    worker.start()
    try:
        with os.fdopen(writable, "wb") as stream:
            yield stream
            stream.flush()
            complete.set()
    except BrokenPipeError:
        worker.join()
        if not problems:
            raise
    except BaseException:
        worker.join()
        raise
    worker.join()
    if problems:
        raise problems[0]


@contextlib.contextmanager
def downloaded(place: Place) -> Iterator[Path]:
    """Yield a copy of an object that only its owner reads, in TMPDIR; it is deleted afterwards. Raises KitError."""
    with tempfile.TemporaryDirectory(prefix="dify-kit-archive-") as folder:
        path = Path(folder) / place.key.rpartition("/")[2]
        with _explained(place, "cannot be read"):
            _copy(_client(place).get_object(place.bucket, place.key), path)
        yield path


def _copy(answer: BaseHTTPResponse, path: Path) -> None:
    """Copy an answer into a file, and say every few seconds how far it is. Raises OSError when it is cut off."""
    try:
        total, copied = int(answer.headers.get("Content-Length") or 0), 0
        next_report = time.monotonic() + _REPORT_SECONDS
        with path.open("wb") as file:
            for block in answer.stream(_COPY_BYTES):
                copied += file.write(block)
                if time.monotonic() > next_report:
                    say(f"    {copied >> 20} of {total >> 20} MiB ...")
                    next_report = time.monotonic() + _REPORT_SECONDS
        if copied != total:
            raise OSError(f"{copied} of {total} bytes came")
    finally:
        answer.close()
        answer.release_conn()
