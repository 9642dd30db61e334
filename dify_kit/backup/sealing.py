"""The encryption of an archive, by age (https://age-encryption.org/v1) with the library pyrage.

A file is two age files, one after the other: an armored one, encrypted with the passphrase, that holds an X25519
identity made for this archive; and a binary one, encrypted to that identity, that holds the tar. The library encrypts
with a passphrase in memory alone and to an identity as a stream, and plain `age` opens both (docs/guides/backup.md).
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyrage

from dify_kit.backup.blocks import Handover
from dify_kit.errors import KitError

SHORTEST_PASSPHRASE = 12
_END = b"-----END AGE ENCRYPTED FILE-----\n"
_BEGIN = b"-----BEGIN AGE ENCRYPTED FILE-----\n"
# The armored identity has 350 bytes.
_LONGEST_HEADER = 4096


def check_passphrase(text: str) -> str:
    """Return a passphrase that may protect an archive. Raises KitError."""
    if len(text) < SHORTEST_PASSPHRASE:
        raise KitError(
            f"the passphrase of the archive has {len(text)} character(s)",
            f"use {SHORTEST_PASSPHRASE} or more: the archive holds every secret of the stack",
        )
    return text


@contextmanager
def sealed(target: IO[bytes], passphrase: str) -> Iterator[Handover]:
    """Yield a stream whose content goes encrypted to `target`. The end of the block ends the archive.

    An exception of the block is raised as it is, and `target` then has an archive without its end.
    """
    identity = pyrage.x25519.Identity.generate()
    target.write(pyrage.passphrase.encrypt(str(identity).encode(), passphrase, armored=True))
    target.flush()
    noting = _Noting(target)
    with _through(lambda source: noting.carry(source, identity.to_public())) as stream:
        yield stream
    target.flush()


class _Noting:
    """A target whose own error is raised: the library makes one of its own of it, without its number."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._problem: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._target.write(data)
        except OSError as problem:
            self._problem = problem
            raise

    def flush(self) -> None:
        self._target.flush()

    def carry(self, source: Handover, recipient: Any) -> None:  # noqa: ANN401  # pyrage has no types
        """Encrypt a stream into the target. Raises what the target raised."""
        try:
            pyrage.encrypt_io(source, self, [recipient])
        except pyrage.EncryptError:
            if self._problem:
                raise self._problem from None
            raise


@contextmanager
def opened(path: Path, passphrase: str) -> Iterator[IO[bytes]]:
    """Yield the decrypted content of an archive. Raises KitError for a wrong passphrase and a cut-off archive.

    The block must read to the end: only then is it certain that nothing was cut off.
    """
    try:
        source = path.open("rb")
    except OSError as problem:
        raise KitError(f"{path} cannot be read: {problem.strerror}", "name an archive of `backup`") from None
    with source:
        identity = _identity(path, source, passphrase)
        reading, writing = os.pipe()
        problems: list[BaseException] = []
        given_up = threading.Event()

        def decrypt() -> None:
            with suppress(OSError), os.fdopen(writing, "wb") as sink:
                try:
                    pyrage.decrypt_io(source, sink, [identity])
                except BaseException as problem:  # noqa: BLE001  # raised at the block's end, in the caller's thread
                    # Noted before the pipe is closed: the reader takes its end for the archive's.
                    if not given_up.is_set():
                        problems.append(problem)

        worker = threading.Thread(target=decrypt, daemon=True)
        worker.start()
        try:
            with os.fdopen(reading, "rb") as stream:
                try:
                    yield stream
                except BaseException:
                    given_up.set()
                    raise
        except Exception:
            worker.join()
            if problems:
                raise _damaged(path) from None
            raise
        worker.join()
        if problems:
            raise _damaged(path)


def _damaged(path: Path) -> KitError:
    return KitError(
        f"{path} is damaged or cut off: it cannot be decrypted to its end", "use another copy of the archive"
    )


def _identity(path: Path, source: IO[bytes], passphrase: str) -> Any:  # noqa: ANN401  # pyrage has no types
    header = b""
    while not header.endswith(_END):
        line = source.readline(_LONGEST_HEADER)
        header += line
        if not line or len(header) > _LONGEST_HEADER or not header.startswith(_BEGIN):
            raise KitError(f"{path} is no archive of `backup`", "name a file that `backup` wrote, whole")
    try:
        text: bytes = pyrage.passphrase.decrypt(header, passphrase)
    except pyrage.DecryptError:
        raise KitError(
            f"the passphrase does not open {path}; nothing was changed",
            "use the passphrase that the archive was made with: --passphrase-file",
        ) from None
    return pyrage.x25519.Identity.from_str(text.decode().strip())


@contextmanager
def _through(work: Callable[[Handover], object]) -> Iterator[Handover]:
    """Yield a stream that another thread reads by `work`. Raises what `work` raised, rather than the broken pipe."""
    stream, problems = Handover(), list[BaseException]()

    def run() -> None:
        try:
            work(stream)
        except BaseException as problem:  # noqa: BLE001  # raised in the caller's thread
            problems.append(problem)
        finally:
            stream.leave()

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        yield stream
    except BrokenPipeError:
        if not problems:
            raise
    finally:
        stream.end()
        worker.join()
    if problems:
        raise problems[0]
