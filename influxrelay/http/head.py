"""The head of a request: the first line and the headers, read as Go's server reads them."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

import attrs
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

MAX_HEAD: Final = 16 * 1024  # bytes
MAX_HEADERS: Final = 100
_CACHED_HEADS = 2048
_MAX_CACHED_HEAD = 2048  # bytes
_MAX_DIGITS = 18  # of a Content-Length; more is over any limit

_BLANK_LINE = re.compile(rb"\n\r?\n")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f]+) HTTP/([0-9])\.([0-9])\r?\n")
_BARE_NEWLINE = re.compile(rb"(?<!\r)\n")
_FOLD = re.compile(rb"\r\n[ \t]+")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_ABSOLUTE_FORM = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_LENGTH = b"ength: "  # of Content-Length, with or without capitals


class HeadError(Exception):
    """A head that cannot be read, and the response to it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


@attrs.frozen(eq=False)
class Head:
    """The head of a request, without its length: requests with equal bytes, but for the length, share one.

    :ivar path: as written, without the query.
    :ivar route: the path with its escapes resolved; empty if it does not begin with a slash.
    :ivar headers: names in lower case, in the order of arrival.
    :ivar length: the ``Content-Length``, 0 if there is none; only for a head that was just read.
    :ivar keep_alive: whether the client lets the connection stay open.
    :ivar is_plain: whether the response needs nothing from this head: neither an id nor headers for a web page.
    """

    method: bytes
    path: bytes
    query: bytes
    route: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    length: int
    chunked: bool
    http_1_0: bool
    keep_alive: bool
    expects_continue: bool
    authorization: bytes
    encoding: bytes
    is_plain: bool

    def header(self, name: bytes) -> bytes:
        """Return the first value of a header, named in lower case; empty if it is missing."""
        return next((value for each, value in self.headers if each == name), b"")

    def values(self, name: bytes) -> list[bytes]:
        """Return all values of a header, named in lower case."""
        return [value for each, value in self.headers if each == name]


def find_end(data: bytes, position: int) -> int:
    """Return where the head that begins at a position ends, behind its blank line; -1 if that has not come."""
    found = _BLANK_LINE.search(data, position)
    return found.end() if found else -1


def check_beginning(data: bytes, position: int) -> None:
    """Refuse an incomplete head that is too long, or whose first line is wrong already.

    :raises HeadError: 400, 431, 505.
    """
    if len(data) - position > MAX_HEAD or data.count(b"\n", position) > MAX_HEADERS + 1:
        raise _too_large()
    if data.find(b"\n", position) >= 0:
        _read_request_line(data, position)


def parse_head(raw: bytes) -> Head:
    """Read a complete head, its blank line included.

    :raises HeadError: 400, 417, 431, 501, 505.
    """
    if len(raw) > MAX_HEAD or raw.count(b"\n") > MAX_HEADERS + 2:
        raise _too_large()
    line = _read_request_line(raw, 0)
    http_1_0 = line[4] == b"0"
    headers = _read_headers(raw[line.end() :])
    values = dict(reversed(headers))  # the first of each name
    chunked = _is_chunked(headers, http_1_0=http_1_0)
    expectation = values.get(b"expect", b"").lower()
    if expectation not in (b"", b"100-continue"):
        raise HeadError(417, "unknown expectation")
    path, query = _split_target(line[2])
    return Head(
        method=line[1],
        path=path,
        query=query,
        route=unquote_to_bytes(path) if path.startswith(b"/") else b"",
        headers=tuple(headers),
        length=int(values.get(b"content-length", b"0")),
        chunked=chunked,
        http_1_0=http_1_0,
        keep_alive=_keeps_alive(headers, http_1_0=http_1_0),
        expects_continue=bool(expectation) and not http_1_0,
        authorization=values.get(b"authorization", b""),
        encoding=b",".join(value for name, value in headers if name == b"content-encoding"),
        is_plain=line[1] != b"HEAD"
        and not http_1_0
        and not {b"origin", b"x-request-id", b"request-id"}.intersection(values),
    )


def _too_large() -> HeadError:
    return HeadError(431, "request header fields too large")


def _malformed() -> HeadError:
    return HeadError(400, "malformed request")


def _read_request_line(data: bytes, position: int) -> re.Match[bytes]:
    line = _REQUEST_LINE.match(data, position)
    if line is None:
        raise _malformed()
    if line[3] != b"1":
        raise HeadError(505, "unsupported protocol version")
    return line


class _Headers(list[tuple[bytes, bytes]]):
    """Collects headers from the parser."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one; called by the parser."""
        self.append((name.lower(), value.rstrip(b" \t")))


def _read_headers(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Read the lines behind the first one.

    As in Go, a bare LF ends a line, and a line may be folded; the parser wants neither.
    """
    if lines.count(b"\n") != lines.count(b"\r\n"):
        lines = _BARE_NEWLINE.sub(b"\r\n", lines)
    if lines[:1] in b" \t":
        raise _malformed()
    lines = _FOLD.sub(b" ", lines)
    headers = _Headers()
    try:
        HttpRequestParser(headers).feed_data(b"POST / HTTP/1.1\r\n" + lines)
    except HttpParserUpgrade:
        pass  # Java's client offers HTTP/2 with each first request; nobody has to accept
    except HttpParserError as error:
        raise _malformed() from error
    return headers


def _is_chunked(headers: list[tuple[bytes, bytes]], *, http_1_0: bool) -> bool:
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if not codings:
        return False
    if http_1_0:  # which has no chunks: to take the body for nothing would lose it
        raise _malformed()
    if codings != [b"chunked"]:
        raise HeadError(501, "unsupported transfer encoding")
    return True


def _keeps_alive(headers: list[tuple[bytes, bytes]], *, http_1_0: bool) -> bool:
    options = b",".join(value for name, value in headers if name == b"connection").lower().split(b",")
    wanted = [option.strip() for option in options]
    return b"close" not in wanted and (not http_1_0 or b"keep-alive" in wanted)


def _split_target(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query; what is not ASCII is escaped, as Go's clients and servers do."""
    if not target.isascii():
        target = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], target)
    absolute = _ABSOLUTE_FORM.match(target)  # RFC 9112, 3.2.2
    path, _, query = target[absolute.end() if absolute else 0 :].partition(b"?")
    return path or b"/", query


class HeadCache:
    """Remembers heads by their bytes: a client sends the same one with each request, but for the length.

    To look one up takes a third of the time for reading it.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def find(self, data: bytes, position: int, end: int) -> tuple[Head, int] | None:
        """Return a known head that lies between two positions in data, and the length that it announces.

        :param end: of the last header, before CRLF CRLF.
        """
        mark = data.find(_LENGTH, position, end)
        if mark < 0:
            head = self._heads.get(data[position:end])
            return None if head is None else (head, 0)
        mark += len(_LENGTH)
        stop = data.find(b"\r\n", mark)
        head = self._heads.get(data[position:mark] + data[stop:end])
        digits = data[mark:stop]
        return (head, int(digits)) if head is not None and len(digits) <= _MAX_DIGITS and digits.isdigit() else None

    def keep(self, raw: bytes, head: Head) -> None:
        """Remember a head that was read from these bytes, unless it is long or written in an unusual way."""
        end = len(raw) - 4
        if end > _MAX_CACHED_HEAD or raw[end:] != b"\r\n\r\n":
            return
        key = raw[:end]
        mark = raw.find(_LENGTH, 0, end)
        if mark >= 0:
            name = raw[raw.rfind(b"\n", 0, mark) + 1 : mark]
            if name.lower() != b"content-l":
                return
            mark += len(_LENGTH)
            key = raw[:mark] + raw[raw.find(b"\r\n", mark) : end]
        elif head.length:
            return
        if len(self._heads) >= _CACHED_HEADS:
            self._heads.clear()
        self._heads[key] = head
