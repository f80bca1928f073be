"""Reading responses, and making sense of those that can be read in part only."""

from __future__ import annotations

import re

import attrs
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import json_error
from influxrelay.core.text import shortened
from influxrelay.core.write import Reply
from influxrelay.remotewrite.headers import WRITTEN, only_counts

PARSER_ERRORS = (HttpParserError, HttpParserUpgrade)
MAX_ANSWER = 1024 * 1024  # bytes of a response that are collected; no InfluxDB answers a write with more
_SHOWN_HEADERS = (
    b"Content-Type",
    b"Content-Encoding",
    b"X-Influxdb-Error",
    b"Retry-After",
    b"WWW-Authenticate",
    *WRITTEN,
)
_STATUS_LINE = re.compile(rb"(?:\r?\n)*HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_CONTROLS = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


def make_parser(protocol: object) -> HttpResponseParser:
    """Return a parser that forgives what proxies and small servers get wrong without making a response ambiguous.

    They pad chunk sizes with blanks, end lines with a bare LF, put odd bytes into headers, or send more than they have
    announced before they close the connection.
    """
    parser = HttpResponseParser(protocol)
    parser.set_dangerous_leniencies(
        lenient_headers=True,
        lenient_data_after_close=True,
        lenient_optional_cr_before_lf=True,
        lenient_spaces_after_chunk_size=True,
    )
    return parser


class ResponseReader:
    """Reads one final response, and skips the interim ones (1xx) before it; 101 is final, for nobody asks for it.

    :ivar status: 0 until the head is complete.
    :ivar reason: the words of the status line.
    :ivar headers: as they came.
    :ivar body: the pieces that have come; whoever takes some removes them.
    :ivar complete: whether all of it has come.
    :ivar keep_alive: whether another request may follow on the connection, once it is complete.
    """

    def __init__(self) -> None:
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.complete = self.keep_alive = False
        self._parser: HttpResponseParser | None = make_parser(self)

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        :raises PARSER_ERRORS: what follows cannot be read.
        """
        if self._parser is None:
            self.keep_alive = False
            return
        try:
            self._parser.feed_data(data)
        except PARSER_ERRORS:
            self.keep_alive = False
            if not self.complete:
                raise
        finally:
            if self.complete:
                self._parser = None  # they refer to each other

    def end(self) -> None:
        """Note that no more bytes come: a response of unknown length is complete with that."""
        names = {name.lower() for name, _ in self.headers}
        if self.status and not names & {b"content-length", b"transfer-encoding"}:
            self.complete = True
        self._parser = None

    def on_message_begin(self) -> None:
        """Forget the interim response before this one; notice what follows the final one."""
        if self.complete:
            self.keep_alive = False
        else:
            self.headers = []
            self.reason = b""

    def on_status(self, reason: bytes) -> None:
        """Keep the reason."""
        if not self.complete:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, or a trailer."""
        if not self.complete:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note the status."""
        if self._parser is not None and not self.complete:
            status = self._parser.get_status_code()
            self.status = status if is_final(status) else 0

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        if not self.complete:
            self.body.append(data)

    def on_message_complete(self) -> None:
        """Note the end."""
        if self._parser is not None and self.status and not self.complete:
            self.complete = True
            self.keep_alive = self.status != 101 and self._parser.should_keep_alive()


def is_final(status: int) -> bool:
    """Tell whether no other response follows one of this status."""
    return status >= 200 or status == 101


def read_reply(data: bytes, problem: BackendFailure, *, closed: bool = False) -> Reply | BackendFailure:
    """Read what has come of a response.

    A clear status line is believed, even if what follows cannot be read: then the reply has a message of ours, or the
    one in ``X-Influxdb-Error``.

    :param problem: why nothing more of it will come, if it is not complete.
    :param closed: the connection was closed properly, as it is after a response of unknown length.
    :return: the reply, or what is wrong where there is no clear status line.
    """
    reader = ResponseReader()
    try:
        reader.feed(data)
    except PARSER_ERRORS as error:
        beginning = shortened(repr(data[:80]), 60)
        problem = BackendFailure("garbage", f"{error}, in an answer that begins with {beginning}")
    if closed:
        reader.end()
    if reader.complete:
        headers = shown_headers(reader.headers)
        if reader.status < 300:
            headers = only_counts(headers)
        return Reply(reader.status, headers, b"".join(reader.body))
    status = reader.status or _clear_status(data)
    return problem if status is None else unreadable_reply(status, reader.headers, problem)


def shown_headers(headers: list[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that a client may see, in canonical spelling."""
    return tuple(
        (shown, _CONTROLS.sub(b" ", value))
        for shown in _SHOWN_HEADERS
        for name, value in headers
        if name.lower() == shown.lower()
    )


def unreadable_reply(status: int, headers: list[tuple[bytes, bytes]], problem: BackendFailure) -> Reply:
    """Return a reply for a response of which little more than the status is known."""
    if status < 300:
        return Reply(status)
    shown = dict(shown_headers(headers))
    has_text = b"X-Influxdb-Error" in shown
    message = f"the backend answered {status}, but the rest of its answer could not be read: {problem.detail}"
    if has_text:
        message = shown[b"X-Influxdb-Error"].decode("utf-8", "backslashreplace")
    kept = [(name, shown[name]) for name in (b"Retry-After", b"WWW-Authenticate") if name in shown]
    return attrs.evolve(json_error(status, message, *kept), complete=has_text)


def _clear_status(data: bytes) -> int | None:
    """Return the status of the first final status line that is clear."""
    position = 0
    while line := _STATUS_LINE.match(data, position):
        status = int(line[1])
        if is_final(status):
            return status
        end = _END_OF_HEAD.search(data, line.end() - 2)
        if end is None:
            return None
        position = end.end()
    return None
