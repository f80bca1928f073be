"""Why a backend gave no answer, in the words that counters, logs and clients know."""

from __future__ import annotations

import os
from socket import gaierror
from ssl import SSLError

from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure

_REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((ConnectionRefusedError,), "refused"),
    ((TimeoutError, ConnectingCancelledError, CancelledError), "timeout"),
    ((DNSLookupError, gaierror), "unresolved"),
    ((SSLError,), "tls"),
    ((ConnectError,), "unreachable"),
    ((ConnectionClosed,), "reset"),
)


def explain(failure: Failure) -> BackendFailure:
    """Turn an error of a connection, or of the attempt to make one, into a failure with one of our reasons.

    The reasons are ``refused``, ``timeout``, ``unresolved``, ``tls``, ``unreachable``, ``reset`` and, for what is none
    of these, ``garbage``. A :class:`BackendFailure` has its reason already.
    """
    error = failure.value
    if isinstance(error, BackendFailure):
        return error
    for classes, reason in _REASONS:
        if isinstance(error, classes):
            return BackendFailure(reason, _describe(error))
    return BackendFailure("garbage", f"{type(error).__name__}: {error}")


def _describe(error: BaseException) -> str:
    """Return the system's words where an error has its number, otherwise the error's own."""
    if (
        isinstance(error, ConnectError) and isinstance(error.osError, int) and error.osError > 0
    ):  # else getaddrinfo(3)'s
        return os.strerror(error.osError)
    return str(error).rstrip(".") or type(error).__name__
