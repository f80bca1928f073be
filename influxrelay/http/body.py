"""The body of a request: where it ends on the wire, and the collecting of its pieces."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Protocol

from httptools import HttpParserError, HttpRequestParser
from twisted.internet.interfaces import IDelayedCall

LINGER = 10.0  # seconds for which a client may go on sending a body that is refused already
BRIEF_LINGER = 0.2  # the same behind what was no HTTP: closing at once could lose the response
MAX_DROPPED = 32 * 1024 * 1024  # bytes that are read and dropped behind a final response
_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
_END = b"\r\n\r\n"  # of the last chunk and the trailers
_SLICE = 16 * 1024  # bytes that are decoded in one go
_CUTS = 32  # places in them that may be the end
_SLACK = 16 * 1024  # bytes of chunk lines, beyond those that each chunk may have
_LINE = 16  # bytes of chunk lines for each byte of data, at most


class ChunkError(ValueError):
    """What was sent is not chunks, or hardly anything but their lines."""


class SizedBody:
    """A body whose length was announced.

    :ivar effort: 0; see :class:`ChunkedBody`.
    """

    effort = 0

    def __init__(self, length: int) -> None:
        self._missing = length

    @property
    def complete(self) -> bool:
        """Whether the body has ended."""
        return not self._missing

    def feed(self, data: bytes, position: int) -> tuple[bytes, int]:
        """Take what belongs to the body, from a position in data on; return that, and where it ends."""
        end = min(position + self._missing, len(data))
        self._missing -= end - position
        return data[position:end] if position or end < len(data) else data, end


class ChunkedBody:
    """A body in chunks.

    :ivar complete: whether the body has ended.
    :ivar effort: how many pieces and possible ends the last slice had: many take long.
    """

    def __init__(self) -> None:
        self.complete = False
        self.effort = 0
        self._pieces: list[bytes] = []
        self._tail = b""
        self._taken = self._decoded = 0
        self._parser = HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)  # Go trims them
        self._parser.feed_data(_HEAD)

    def on_body(self, data: bytes) -> None:
        """Take a chunk, or a part of one; called by the parser."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Note the end; called by the parser."""
        self.complete = True

    def feed(self, data: bytes, position: int) -> tuple[bytes, int]:
        """Decode a slice of data, from a position on.

        :return: what it holds, and where the slice ends: behind the body once that is complete.
        :raises ChunkError: that is not chunks, or their lines are far longer than what they hold.
        """
        end = min(position + _SLICE, len(data))
        start, cuts = position, 0
        try:
            # The parser would go on into the next request, so it is given what comes up to each possible end.
            while start < end and not self.complete and cuts < _CUTS:
                cut = self._next_cut(data, start, end)
                self._parser.feed_data(data[start:cut])
                self._tail = (self._tail + data[max(start, cut - 3) : cut])[-3:]
                start = cut
                cuts += 1
        except HttpParserError as error:
            raise ChunkError(str(error)) from error
        self.effort = cuts + len(self._pieces)
        decoded = b"".join(self._pieces)
        self._pieces.clear()
        self._taken += start - position
        self._decoded += len(decoded)
        if self._taken > _SLACK + (_LINE + 1) * self._decoded:
            raise ChunkError("too much beside the data")
        return decoded, start

    def _next_cut(self, data: bytes, start: int, end: int) -> int:
        across = (self._tail + data[start : start + 3]).find(_END)
        if across >= 0:
            return start + across + len(_END) - len(self._tail)
        found = data.find(_END, start, end)
        return end if found < 0 else found + len(_END)


class Receiver(Protocol):
    """Takes a body as it comes."""

    def data_received(self, data: bytes) -> None:
        """Take a piece."""

    def body_complete(self) -> None:
        """Note that nothing more follows."""

    def body_lost(self) -> None:
        """Note that the rest will never come."""


class Upload:
    """A body that is on its way: it is collected, or given to a receiver piece by piece.

    :param framing: tells where it ends.
    :param resumed: for a body that is given to a receiver: called when more of it is wanted.
    :ivar size: bytes that have come.
    :ivar paused: whether nothing is wanted for now: there is no receiver yet, or it said so.
    """

    def __init__(self, framing: SizedBody | ChunkedBody, resumed: Callable[[], None] | None = None) -> None:
        self.framing = framing
        self.streamed = self.paused = resumed is not None
        self.size = 0
        self._resumed = resumed
        self._lost = False
        self._receiver: Receiver | None = None
        self._content = BytesIO()  # which a whole body leaves without being copied

    @property
    def complete(self) -> bool:
        """Whether everything has come."""
        return self.framing.complete

    def attach(self, receiver: Receiver) -> None:
        """Give what comes to a receiver."""
        self._receiver = receiver
        if self._lost:
            self.lose()
        else:
            self.resume()

    def pause(self) -> None:
        """Want nothing for now; only a receiver may say so."""
        self.paused = self.streamed

    def resume(self) -> None:
        """Want more."""
        if self.paused and self._receiver is not None and self._resumed is not None:
            self.paused = False
            self._resumed()

    def take(self, piece: bytes) -> None:
        """Take what has come."""
        self.size += len(piece)
        if self._receiver is not None:
            self._receiver.data_received(piece)
        else:
            self._content.write(piece)

    def finish(self) -> bytes:
        """Return what was collected, and hold it no longer; tell the receiver that it has everything."""
        content, self._content = self._content, BytesIO()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.body_complete()
        return content.getvalue()

    def lose(self) -> None:
        """Let go of what has come, for the rest never will."""
        self._lost = True
        self._content = BytesIO()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.body_lost()


class Drain:
    """Drops what a client sends behind a final response.

    :param framing: of the body that it is sending; None if what it sends cannot be read.
    :param timer: ends this.
    :ivar dropped: bytes so far.
    :ivar complete: whether the body has ended.
    """

    def __init__(self, framing: SizedBody | ChunkedBody | None, timer: IDelayedCall) -> None:
        self.dropped = 0
        self.complete = framing is not None and framing.complete
        self._framing = framing
        self._timer = timer

    @property
    def exhausted(self) -> bool:
        """Whether so much has come that no more is read."""
        return self.dropped > MAX_DROPPED

    def drop(self, data: bytes) -> bool:
        """Drop a piece; return whether the body has ended. Of chunks only the usual end is recognized."""
        self.dropped += len(data)
        if isinstance(self._framing, SizedBody):
            self._framing.feed(data, 0)
            self.complete = self._framing.complete
        elif self._framing is not None:
            self.complete = self.complete or data.endswith(b"\r\n0\r\n\r\n")
        return self.complete

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer.active():
            self._timer.cancel()
