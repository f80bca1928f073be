"""Line protocol as the relay takes it: which lines lack a timestamp, and get one; which bodies may be joined."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Final

from influxrelay.lineprotocol.clean_lines import BARE, BLANK, FINISHED
from influxrelay.lineprotocol.finished import is_finished
from influxrelay.lineprotocol.scanner import BLANKS, OFTEN, Steps, ends_anywhere, find_fields_end, find_line_end, run

PRECISIONS: Final = {
    b"": 1,
    b"n": 1,
    b"ns": 1,
    b"u": 10**3,
    b"ms": 10**6,
    b"s": 10**9,
    b"m": 60 * 10**9,
    b"h": 3600 * 10**9,
}
"""What ``precision`` may say in a write, in nanoseconds."""

WINDOW = 32 * 1024  # bytes that regular expressions see at once, up to the end of a line
_LONG = 512 * 1024  # bytes of a line that is not matched by them, but read step by step
_COPIED = 1024 * 1024  # bytes that are copied at once
_OPEN = b"\\"  # stands for a line that is too long to be read again: nothing is joined to it
_NO_POINT = re.compile(rb"[ \t\0]*+(?:#|\Z)")  # a comment or a blank line


def timestamp(precision: bytes, now: int) -> bytes:
    """Write ``now``, nanoseconds since the epoch, in a precision, rounded down as InfluxDB does."""
    return b"%d" % (now // PRECISIONS[precision])


def stamp(body: bytes, precision: bytes, now: int) -> bytes:
    """Put ``now`` at the end of every line that InfluxDB would otherwise give a time of its own.

    All else stays byte for byte: lines with a timestamp, comments, blank lines, and malformed ones, so that InfluxDB's
    error quotes what the client sent. Blanks at the end of a stamped line go. Unsigned integers (``1u``) count as
    valid: InfluxDB 2 accepts them, 1.x does only if built so.
    """
    return prepare(body, precision, now)[0]


def prepare(body: bytes, precision: bytes, now: int) -> tuple[bytes, bool]:
    """Stamp a body, and tell whether another one may be joined to it with nothing but a newline between them.

    It may not if its last line is left open by a quote or a backslash: what follows would become part of that line. The
    verdict is about the body as it is, so add a newline where there is none at the end, and strip none.
    """
    return (body, True) if is_finished(body, precision) else run(prepare_slowly(body, precision, now))


def prepare_slowly(body: bytes, precision: bytes, now: int) -> Steps[tuple[bytes, bool]]:
    """Do what :func:`prepare` does, a millisecond or so at a time, whatever the lines are."""
    suffix = b" " + timestamp(precision, now)
    result = _Result(body)
    last = b""  # the line before the position, if no regular expression has matched it
    position = edge = odd = 0
    at_once = True
    while position < len(body):
        if position >= edge:
            edge = _edge(body, position)
            at_once = edge - position <= _LONG
            if position:
                yield from result.copy_up_to(position)
                yield 0
        if at_once and (finished := FINISHED.match(body, position, edge)):
            position, last = finished.end(), b""
        elif at_once and (bare := BARE.match(body, position, edge)):
            stamped = bare[0].replace(b"\n", suffix + b"\n")
            result.replace(position, bare.end(), stamped if stamped.endswith(b"\n") else stamped + suffix)
            position, last = bare.end(), b""
        else:
            odd += 1
            if odd % OFTEN == 0:
                yield 0
            end, _ = yield from find_line_end(body, position)
            last, changed = yield from _read_line(body, position, end, suffix)
            if changed:
                result.replace(position, end, changed)
            position = end + 1
    mergeable = not last or (yield from ends_anywhere(last))
    if not result.is_changed:
        return body, mergeable
    yield from result.copy_up_to(len(body))
    return result.content(), mergeable


class _Result:
    """What becomes of a body: it is not copied before something in it changes, and then bit by bit.

    :ivar is_changed: whether it is another one than before.
    """

    def __init__(self, body: bytes) -> None:
        self.is_changed = False
        self._before = memoryview(body)
        self._pieces: list[bytes | memoryview] = []  # of what follows what is done
        self._replaced = 0  # up to where the pieces go
        self._done = BytesIO()  # which a whole body leaves without being copied once more

    def replace(self, start: int, end: int, new: bytes) -> None:
        """Put something else in the place of a part."""
        self.is_changed = True
        self._pieces += self._before[self._replaced : start], new
        self._replaced = end

    def copy_up_to(self, position: int) -> Steps[None]:
        """Copy what precedes a position, if that is not as it was."""
        if not self.is_changed:
            return
        self._pieces.append(self._before[self._replaced : position])
        self._replaced = position
        for piece in self._pieces:
            for start in range(0, len(piece), _COPIED):
                self._done.write(piece[start : start + _COPIED])
                if len(piece) > _COPIED:
                    yield 0
        self._pieces.clear()

    def content(self) -> bytes:
        """Return it all."""
        return self._done.getvalue()


def window_end(body: bytes, position: int) -> int:
    """Return where to look no further for now: behind the end of a line, so that no line is cut."""
    if len(body) - position <= WINDOW:
        return len(body)
    return body.find(b"\n", position + WINDOW) + 1 or len(body)


def _edge(body: bytes, position: int) -> int:
    """Return what :func:`window_end` does, or a place beyond what is matched at once, without a search for the end."""
    furthest = position + WINDOW + _LONG
    if len(body) - position <= WINDOW:
        return len(body)
    return body.find(b"\n", position + WINDOW, furthest) + 1 or min(furthest, len(body))


def _read_line(body: bytes, position: int, end: int, suffix: bytes) -> Steps[tuple[bytes, bytes]]:
    """Return the line between two positions, or what stands for a very long one; and the stamped line if it changes."""
    is_long = end - position > _COPIED
    if is_long and _NO_POINT.match(body, position, end):
        return _OPEN, b""
    line = body[position:end]
    stamped = yield from _stamp_line(line, suffix)
    return _OPEN if is_long else line, b"" if stamped is line else stamped


def _stamp_line(line: bytes, suffix: bytes) -> Steps[bytes]:
    """Stamp one line as :func:`line_end` delimits it."""
    point = line.lstrip(BLANKS)
    if point.startswith(b"#"):
        return line
    end = yield from find_fields_end(point.removesuffix(b"\n"))
    if end is None:
        return line
    end += len(line) - len(point)
    rest = line[end:].lstrip(BLANKS)
    if rest and not rest.startswith(b"\n"):
        return line
    fields = line[:end]
    if (end - len(fields.rstrip(b"\\"))) % 2:
        # Only the last line of a body can end so, in a string and a stray backslash, which would escape our space.
        # InfluxDB drops a string's last byte unseen, so another one serves as well.
        fields = fields[:-1] + b"."
    return fields + suffix + rest


def is_blank(body: bytes) -> bool:
    """Whether there is nothing in the body that InfluxDB would try to read as a point."""
    return body[:1] in b"# \t\0\n" and run(is_blank_slowly(body))


def is_blank_slowly(body: bytes) -> Steps[bool]:
    """Do what :func:`is_blank` does, a millisecond or so at a time."""
    position = edge = 0
    while position < len(body):
        if position >= edge:
            edge = _edge(body, position)
            if position:
                yield 0
        blank = BLANK.match(body, position, edge) if edge - position <= _LONG else None
        if blank is None:
            break
        position = blank.end()
    steps = 0
    while position < len(body):
        steps += 1
        if steps % OFTEN == 0:
            yield 0
        end, _ = yield from find_line_end(body, position)
        if not _NO_POINT.match(body, position, end):
            return False
        position = end + 1
    return True
