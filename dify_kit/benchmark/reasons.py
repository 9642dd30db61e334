"""Why a connection failed: the error below the HTTP client's own, in a sentence."""

import os
import socket
import ssl
from collections.abc import Iterator

import httpx


def reason(error: BaseException) -> str:
    """Return why a request failed on its connection, without address, URL or header."""
    for one in _causes(error):
        if text := _known(one):
            return text
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    text = str(error)
    return text.splitlines()[0][:200] if text else type(error).__name__


def _known(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"the certificate is not trusted: {error.verify_message}"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "HTTP_REQUEST" | "RECORD_LAYER_FAILURE"):
            return "the port has no TLS"
        case ssl.SSLError():
            return f"TLS failed: {(getattr(error, 'reason', None) or str(error)).replace('_', ' ').lower()}"
        case socket.gaierror():
            return f"the name has no address: {error.strerror}"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the causes of an error, the deepest first; of a group, those of its first member that has one."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for one in (*inner, error.__cause__ or error.__context__):
        if one is not None:
            yield from _causes(one)
    yield error
