"""The small values that travel through the relay; none is changed once it is made."""

from __future__ import annotations

import attrs

LINES, REMOTE_WRITE, STATEMENT = "lines", "remote write", "statement"
_REMOTE_WRITE, _STATEMENT = REMOTE_WRITE.encode(), STATEMENT.encode()
_LONGEST_PRECISION = 2  # bytes, as in "ns"


@attrs.frozen(cache_hash=True)
class Destination:
    """What makes two writes belong to one order: they go to the same place as the same user.

    :ivar precision: as the backend will read it: ``ns`` for none given, ``n`` and ``ns``; behind it, on a line, that no
        part of the write may be stored alone, if that is so. Of remote writes it is :data:`REMOTE_WRITE`, and behind it
        whatever headers keep tenants apart, each on a line; of statements it is :data:`STATEMENT`.
    :ivar credentials: the client's own (``Authorization`` header, ``u`` and ``p``), opaque; shown by no ``repr``.
    :ivar kind: what its writes are: :data:`LINES`, :data:`REMOTE_WRITE` or :data:`STATEMENT`.
    """

    database: bytes
    retention_policy: bytes
    precision: bytes
    credentials: tuple[bytes, bytes, bytes] = attrs.field(repr=False)
    kind: str = attrs.field(init=False, eq=False, repr=False)

    @kind.default
    def _find_kind(self) -> str:
        precision = self.precision
        if len(precision) <= _LONGEST_PRECISION:
            return LINES
        if precision.startswith(_REMOTE_WRITE):
            return REMOTE_WRITE
        return STATEMENT if precision == _STATEMENT else LINES


CHANGES = Destination(b"", b"", _STATEMENT, (b"", b"", b""))
"""Where all statements go that change something: they have one order, whatever they name."""


@attrs.define(eq=False)  # not frozen: one is made for every request, and each attribute would take a call
class Write:
    """One accepted HTTP request, one batch of UDP lines, or one statement that changes something.

    :ivar query: the query string for the backends, as the client wrote it. Writes of one destination travel merged only
        where it is the same. That of a remote write has its media type and version too.
    :ivar authorization: the client's ``Authorization`` header, or ``b""``.
    :ivar body: line protocol in which every line has its timestamp; of a remote write the body as it came; of a
        statement see :mod:`influxrelay.delivery.statements`, also for its ``query``.
    :ivar mergeable: whether another body may be joined to this one with nothing but a newline between them.
    :ivar gzipped: whether ``body`` is a gzip stream, of one member or several. If it is mergeable, what it holds ends
        with a newline, so that gzipped bodies are joined by concatenation; plain and gzipped bodies are never joined.
    """

    destination: Destination
    query: bytes = attrs.field(repr=False)
    authorization: bytes = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    mergeable: bool = True
    gzipped: bool = False


@attrs.frozen
class Reply:
    """An answer, from a backend or our own.

    :ivar headers: the few that a client may see, in canonical spelling (``Content-Type``, ``X-Influxdb-Error``, ...).
    :ivar complete: whether all of a backend's answer could be read; else the body is a message of ours.
    :ivar held: whether the operator says of such an answer that it is no fault of the write, which is to wait.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    complete: bool = True
    held: bool = False
