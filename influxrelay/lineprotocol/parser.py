r"""InfluxDB's line protocol, as far as a relay has to know it: where lines end, and which lack a timestamp.

Everything here takes and returns ``bytes`` and makes no object per point. The authority is InfluxDB's own parser,
``models/points.go``, the same in 1.6 to 1.12 and 2.x but for unsigned integers. It reads each line twice, and the two
readings need not agree:

* ``scanLine`` finds where a line ends. A backslash takes the next byte with it, even a newline. Quotes count after the
  first space, while there are more ``=`` than ``,``; a newline between them does not end the line.
* ``parsePoint`` reads the line. In measurement and tags a byte is escaped if a backslash precedes it (also in
  ``\\,``); in fields, backslashes go in pairs with the byte that follows.

A carriage return is a byte like any other: ``v=1\r`` and ``1234\r`` are refused, ``s="x"\r`` is accepted.

The regular expressions below match *clean* lines, on which both readings agree, as many at once as there are. What
they do not match is read by :func:`_line_end` and :func:`_parse`, line by line and exactly as InfluxDB does. No loop
ever goes back, so that time is linear for any input: ``(?>...)*+`` is possessive, and atomic as well because before
Python 3.11.5 a possessive loop ends in the wrong place if its last round fails half-way (CPython issue 106052).
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator
from typing import Final, TypeVar, cast

T = TypeVar("T")

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

_WINDOW = 64 * 1024  # bytes that the regular expressions below see at once ...
_LONG = 512 * 1024  # ... up to the end of the line, unless that is so far away ...
_OFTEN = 64  # ... and the steps of the loops below, each some microseconds, between two pauses
_COUNTED, _SAMPLE = 16384, 2048  # bytes, of count_lines

_BLANKS = b" \t\0"
_QUOTE, _COMMA, _EQUALS, _NEWLINE = b'",=\n'

# Clean lines: a backslash escapes one byte, and that is neither a backslash nor a newline.
_NAME = rb"[^\\, \t\0\n#][^\\, \n]*+(?>\\[^\\\n][^\\, \n]*+)*+"
_KEY = rb"[^\\,= \n]++(?>\\[^\\\n][^\\,= \n]*+)*+"
_SERIES = _NAME + rb"(?>," + _KEY + rb"=" + _KEY + rb")*+"
_STRING = rb'"[^"\\]*+(?>\\.[^"\\]*+)*+"'
_ONE_LINE_STRING = rb'"[^"\\\n]*+(?>\\[^\n][^"\\\n]*+)*+"'
_FLOAT = rb"-?+(?:[0-9]{1,24}+(?>\.[0-9]{0,24}+)?+|\.[0-9]{1,24}+)(?>[eE][+-]?+[0-9]{1,2}+)?+"  # never infinite
_BOOLEAN = rb"t(?>rue)?+|T(?>rue|RUE)?+|f(?>alse)?+|F(?>alse|ALSE)?+"
_IN_RANGE = rb"-?+[0-9]{1,18}+i|" + _FLOAT + rb"(?=[, \n]|\Z)|" + _BOOLEAN
_END = rb"(?:\n|\Z)"


def _fields(value: bytes) -> bytes:
    """Match fields whose values match ``value``."""
    field = _KEY + rb"=(?:" + value + rb")"
    return field + rb"(?>," + field + rb")*+"


def _lines(*kinds: bytes) -> re.Pattern[bytes]:
    """Match as many lines as there are of some kinds, which include the newline."""
    return re.compile(rb"(?>" + rb"|".join(kinds) + rb")++", re.DOTALL)


# Lines that stay as they are: comments, blank lines, and what has a timestamp, whatever its values look like.
_FINISHED = _lines(
    _SERIES + rb" " + _fields(_STRING + rb'|[^\\",= \n]++') + rb" -?+[0-9]++" + _END,
    rb'#[^\\"\n]*+' + _END,
    rb"[ \t\0]*+\n",
)
_BLANK = _lines(rb'#[^\\"\n]*+' + _END, rb"[ \t\0]*+\n")
# Valid lines without a timestamp; every newline in a match is the end of a line.
_BARE = _lines(_SERIES + rb" " + _fields(rb"[0-9]{1,19}+u|" + _IN_RANGE + rb"|" + _ONE_LINE_STRING) + _END)


def _simple(precision: bytes) -> re.Pattern[bytes]:
    """Match valid lines whose timestamp cannot be out of range: it is shorter than the last one, or begins lower."""
    first, *others = b"%d" % (_TIME_MAX // PRECISIONS[precision])
    time = rb"-?+(?:[0-%c][0-9]{%d}|[0-9]{1,%d}+)" % (first - 1, len(others), len(others))
    return _lines(_SERIES + rb" " + _fields(_IN_RANGE + rb"|" + _ONE_LINE_STRING) + rb" " + time + _END)


_TIME_MIN, _TIME_MAX = -(2**63) + 2, 2**63 - 2  # models/time.go
_SIMPLE = {precision: _simple(precision) for precision in PRECISIONS}

# Where a body without quotes and backslashes has a line that does not end in a timestamp of today's usual width. A
# pattern that starts with one literal byte is searched with memchr.
_WIDTHS = {b"": 19, b"n": 19, b"ns": 19, b"u": 16, b"ms": 13, b"s": 10, b"m": 8, b"h": 6}
_GAP = {precision: re.compile(rb"\n(?<! [0-9]{%d}\n)" % width) for precision, width in _WIDTHS.items()}
_LAST = {precision: re.compile(rb" [0-9]{%d}\Z" % width) for precision, width in _WIDTHS.items()}

# scanLine: a backslash escapes nothing if there are fewer than two bytes behind it.
_ESCAPED = rb"\\.(?=.)|\\"
_TO_FIELDS = re.compile(rb"(?>[^\\ \n]++|" + _ESCAPED + rb")*+", re.DOTALL)
_TO_SIGN = re.compile(rb'(?>[^\\",=\n]++|' + _ESCAPED + rb")*+", re.DOTALL)
_TO_QUOTE = re.compile(rb'(?>[^\\"]++|' + _ESCAPED + rb")*+", re.DOTALL)

# scanKey, scanFields, scanNumber, scanBoolean, walkFields and scanTime.
_EXACT_KEY = rb"[^ ,=\\]++|\\++[ ,=]?+"
_WHOLE_SERIES = (
    rb"(?>[^ ,\\]++|\\++[ ,]?+)++"
    rb"(?>,(?>" + _EXACT_KEY + rb")++=(?:=|" + _EXACT_KEY + rb")(?>" + _EXACT_KEY + rb")*+)*+"
)
_EXACT_SERIES = re.compile(_WHOLE_SERIES + rb"(?= )[ \t\0]*+")
_TO_FIELD_SIGN = re.compile(rb'(?>[^\\",= ]++|\\.?+)*+', re.DOTALL)
_TO_FIELD_QUOTE = re.compile(rb'(?>[^\\"]++|\\.?+)*+', re.DOTALL)
_NUMBER = re.compile(rb"(?:(-?+[0-9]++)([iu])|-?+(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?>[eE][+-]?+[0-9]++)?+)(?=[, ]|\Z)")
_TRUTH = re.compile(rb"(?:" + _BOOLEAN + rb")(?=[, ]|\Z)")
_MISSING = re.compile(rb"=(?:(?<=[^\\][ ,]=)|[, ]|\Z)")  # a field key or value
_PAIRS = re.compile(
    rb"(?>"
    rb"(?>[^=\\]++|\\++=?+)*+=(?=.)"
    rb'(?>[^",\\]++|\\["\\]?+|"(?>[^"\\]++|\\["\\]?+)*+(?:"|\Z))*+,?+'
    rb")*+",
    re.DOTALL,
)
_TIME = re.compile(rb"(-?[0-9]+) *\Z")

# split_lines and read_series.
MAX_SERIES: Final = 65535  # bytes that a series may have (``MaxKeyLength``)
_INDENT = re.compile(rb"\n[ \t\0]")
_CLEAN_LINE = re.compile(
    rb"(" + _SERIES + rb") " + _fields(_STRING + rb'|[^\\",= \n]++') + rb"(?> -?+[0-9]++)?+(?=\n|\Z)", re.DOTALL
)
_LEADING_SERIES = re.compile(rb"[ \t\0]*+((?>[^ \\]++|\\++ ?+)++)")
_WHOLE = re.compile(_WHOLE_SERIES)
_UNESCAPED_COMMA = re.compile(rb"(?<!\\),")
_UNESCAPED_EQUALS = re.compile(rb"(?<!\\)=")
_ESCAPE_IN_NAME = re.compile(rb"\\([, =\"])")  # pkg/escape/bytes.go
_ESCAPE_IN_KEY = re.compile(rb"\\([, =])")  # tagEscapeCodes


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


def is_finished(body: bytes, precision: bytes) -> bool:
    """Whether every line ends in a timestamp of today's usual width, so that there is nothing to read in them.

    False tells nothing; it is what :func:`prepare` is for.
    """
    return (
        b'"' not in body
        and b"\\" not in body
        and _GAP[precision].search(body) is None
        and (body[-1:] == b"\n" or _LAST[precision].search(body, max(len(body) - 20, 0)) is not None)
    )


def prepare(body: bytes, precision: bytes, now: int) -> tuple[bytes, bool]:
    """Stamp a body, and tell whether another one may be joined to it with nothing but a newline between them.

    It may not if its last line is left open by a quote or a backslash: what follows would become part of that line. The
    verdict is about the body as it is, so add a newline where there is none at the end, and strip none.
    """
    return (body, True) if is_finished(body, precision) else run(prepare_slowly(body, precision, now))


Steps = Generator[int, None, T]
"""Work that can be left for a while at each ``yield``, which tells how many bytes more are in memory; its result."""


def run(steps: Steps[T]) -> T:
    """Do all of it."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


def prepare_slowly(body: bytes, precision: bytes, now: int) -> Steps[tuple[bytes, bool]]:
    """Do what :func:`prepare` does, a millisecond or so at a time, whatever the lines are."""
    suffix = b" " + timestamp(precision, now)
    done = bytearray()
    pieces: list[bytes] = []
    changed = False
    last = b""  # the line before the position, if no regular expression has matched it
    copied = position = edge = odd = 0  # what lies between the first two stays as it is
    while position < len(body):
        if position >= edge:
            edge = _window(body, position)
            done += b"".join(pieces)
            pieces.clear()
            if position:
                yield 0
        at_once = edge - position <= _LONG
        if at_once and (finished := _FINISHED.match(body, position, edge)):
            position, last = finished.end(), b""
        elif at_once and (bare := _BARE.match(body, position, edge)):
            pieces += body[copied:position], bare[0].replace(b"\n", suffix + b"\n")
            copied = position = bare.end()
            last = b""
            if not bare[0].endswith(b"\n"):
                pieces.append(suffix)
        else:
            odd += 1
            if odd % _OFTEN == 0:
                yield 0
            end, _ = yield from _find_line_end(body, position)
            last = line = body[position:end]
            stamped = yield from _stamp_line(line, suffix)
            if stamped != line:
                pieces += body[copied:position], stamped
                copied = end
            position = end + 1
        changed = changed or bool(pieces)
    mergeable = not last or (yield from _ends_anywhere(last))
    if not changed:
        return body, mergeable
    pieces.append(body[copied:])
    done += b"".join(pieces)
    return bytes(done), mergeable


def _ends_anywhere(line: bytes) -> Steps[bool]:
    """Tell whether a line ends where it does whatever follows its newline; bit by bit.

    It does not if it leaves a quote open, or if a backslash at its end is an escape as soon as two bytes follow.
    """
    found = yield from _find_line_end(line + b"\n\n\n", 0)
    return found == (len(line), True)


def _window(body: bytes, position: int) -> int:
    """Return where to look no further for now: behind the end of a line, so that no line is cut."""
    if len(body) - position <= _WINDOW:
        return len(body)
    return body.find(b"\n", position + _WINDOW) + 1 or len(body)


def is_blank(body: bytes) -> bool:
    """Whether there is nothing in the body that InfluxDB would try to read as a point."""
    return body[:1] in b"# \t\0\n" and run(is_blank_slowly(body))


def is_blank_slowly(body: bytes) -> Steps[bool]:
    """Do what :func:`is_blank` does, a millisecond or so at a time."""
    position = edge = 0
    while position < len(body):
        if position >= edge:
            edge = _window(body, position)
            if position:
                yield 0
        blank = _BLANK.match(body, position, edge)
        if blank is None:
            break
        position = blank.end()
    steps = 0
    while position < len(body):
        steps += 1
        if steps % _OFTEN == 0:
            yield 0
        end, _ = yield from _find_line_end(body, position)
        line = body[position:end].lstrip(_BLANKS)
        if line and not line.startswith(b"#"):
            return False
        position = end + 1
    return True


def split_lines(body: bytes) -> tuple[list[bytes], list[bytes]]:
    r"""Split a body at the newlines that end lines: ``b"\n".join`` makes it one again.

    :return: the lines, and for each what may be its series: measurement and tags as they are written, for
        :func:`read_series`.
    """
    lines, series = [], []
    for _, some, theirs in split_slowly(body):
        lines += some
        series += theirs
    return lines, series


def split_slowly(body: bytes) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
    """Do what :func:`split_lines` does, a millisecond or so and some lines at a time, at times none.

    :return: where the first of these lines begins, and they.
    """
    if b'"' not in body and b"\\" not in body and _INDENT.search(body) is None and body[:1] not in _BLANKS:
        start = end = 0
        while end >= 0:
            end = body.find(b"\n", start + _WINDOW)
            lines = (body[start:] if end < 0 else body[start:end]).split(b"\n")
            yield start, lines, [line.partition(b" ")[0] for line in lines]
            start = end + 1
        return
    lines, series = [], []
    start = position = 0
    while position <= len(body):
        clean = _CLEAN_LINE.match(body, position)
        if clean:
            end = clean.end()
            series.append(clean[1])
        else:
            finding = _find_line_end(body, position)
            while True:
                try:
                    next(finding)
                except StopIteration as found:
                    end, _ = found.value
                    break
                yield position, [], []
            leading = _LEADING_SERIES.match(body, position, end)
            series.append(leading[1] if leading else b"")
        lines.append(body[position:end])
        position = end + 1
        if len(lines) >= _OFTEN or position > len(body):
            yield start, lines, series
            lines, series, start = [], [], position


def read_series(series: bytes) -> tuple[bytes, list[bytes]] | None:
    """Read a measurement and the keys of its tags, as InfluxDB shows them; None if it would refuse to read them.

    The fork's filters see the same names (``Name()`` and ``Tags()`` in ``models/points.go``).
    """
    if series.startswith(b"#") or len(series) > MAX_SERIES or not _WHOLE.fullmatch(series):
        return None
    measurement, *tags = _UNESCAPED_COMMA.split(series)
    keys = [_UNESCAPED_EQUALS.split(tag, 1)[0] for tag in tags]
    if b"\\" not in series:
        return measurement, keys
    return _ESCAPE_IN_NAME.sub(rb"\1", measurement), [_ESCAPE_IN_KEY.sub(rb"\1", key) for key in keys]


def count_lines(body: bytes) -> int:
    """How many lines there are, at the most: newlines in strings, comments and blank lines count too.

    Of a body over 16 KiB they are reckoned from the length of lines at its beginning, middle and end: counting would be
    3% of all the work for a large write.
    """
    size = len(body)
    if size <= _COUNTED:
        return _newlines(body) + (body[-1:] not in b"\n")
    lines = length = 0
    for start in (0, (size - _SAMPLE) // 2, size - _SAMPLE):
        sample = body[start : start + _SAMPLE]
        whole = sample[sample.find(b"\n") + 1 : sample.rfind(b"\n") + 1]
        lines += _newlines(whole)
        length += len(whole)
    return round(size * lines / length) if lines else _newlines(body) + (body[-1:] not in b"\n")


def _newlines(body: bytes) -> int:
    # CPython 3.11 deletes bytes at three times the speed at which it counts them.
    return len(body) - len(body.replace(b"\n", b""))


def all_simple(data: bytes, precision: bytes = b"") -> bool:
    """Whether every line is valid, has a timestamp and no newline within: then there is nothing to stamp or drop.

    False tells nothing; it is what :func:`split_valid` is for.
    """
    return _SIMPLE[precision].fullmatch(data) is not None


def split_valid(data: bytes, precision: bytes = b"") -> tuple[list[bytes], int]:
    """Pick the lines that InfluxDB 1.x accepts, each good in any company, and count the others.

    No newline at their ends, no comments, no blank lines. Unsigned integers are not valid here, nor are timestamps out
    of range: InfluxDB drops a datagram for one bad line in it. Duplicate tags and keys over 64 KiB are not found.
    """
    valid = []
    invalid = 0
    for line in _each_line(data):
        parsed = _parse(line, unsigned=False)
        if (
            parsed is not None
            and _time_is_valid(line[parsed:].lstrip(_BLANKS), precision)
            and run(_ends_anywhere(line))  # also among others, and without leading blanks
        ):
            valid.append(line)
        else:
            invalid += 1
    return valid, invalid


def _each_line(body: bytes) -> Iterator[bytes]:
    """Yield what InfluxDB reads as points, without leading blanks and the newline."""
    position = 0
    while position < len(body):
        end, _ = _line_end(body, position)
        line = body[position:end].lstrip(_BLANKS)
        if line and not line.startswith(b"#"):
            yield line.removesuffix(b"\n")
        position = end + 1


def _stamp_line(line: bytes, suffix: bytes) -> Steps[bytes]:
    """Stamp one line as :func:`_line_end` delimits it."""
    point = line.lstrip(_BLANKS)
    if point.startswith(b"#"):
        return line
    end = yield from _find_fields_end(point.removesuffix(b"\n"))
    if end is None:
        return line
    end += len(line) - len(point)
    rest = line[end:].lstrip(_BLANKS)
    if rest and not rest.startswith(b"\n"):
        return line
    fields = line[:end]
    if (end - len(fields.rstrip(b"\\"))) % 2:
        # Only the last line of a body can end so, in a string and a stray backslash, which would escape our space.
        # InfluxDB drops a string's last byte unseen, so another one serves as well.
        fields = fields[:-1] + b"."
    return fields + suffix + rest


def _time_is_valid(rest: bytes, precision: bytes) -> bool:
    """Whether what follows the fields is nothing, or a timestamp in range (``SafeCalcTime``)."""
    if not rest:
        return True
    time = _TIME.match(rest)
    if time is None:
        return False
    return _TIME_MIN <= _integer(time[1]) * PRECISIONS[precision] <= _TIME_MAX


def _integer(digits: bytes) -> int:
    """Convert like ``int``, which raises on some thousand digits; here, what 64 bits cannot hold is just too much."""
    sign = -1 if digits.startswith(b"-") else 1
    digits = digits.lstrip(b"-").lstrip(b"0")
    return sign * int(digits[:21] or b"0")


def _skip(pattern: re.Pattern[bytes], text: bytes, position: int) -> int:
    """Find where a pattern that may match nothing stops."""
    match = pattern.match(text, position)
    return match.end() if match else position


def _line_end(body: bytes, position: int) -> tuple[int, bool]:
    """Find the end of the line that begins here, as ``scanLine`` does, and whether no quote is open there."""
    return run(_find_line_end(body, position))


def _find_line_end(body: bytes, position: int) -> Steps[tuple[int, bool]]:
    """Do that bit by bit."""
    position = _skip(_TO_FIELDS, body, position)
    equals = commas = steps = 0
    while position < len(body) and (sign := body[position]) != _NEWLINE:
        steps += 1
        if steps % _OFTEN == 0:
            yield 0
        if sign == _QUOTE and equals > commas:
            position = _skip(_TO_QUOTE, body, position + 1)
            if position == len(body):
                return position, False
        elif sign == _EQUALS:
            equals += 1
        elif sign == _COMMA:
            commas += 1
        position = _skip(_TO_SIGN, body, position + 1)
    return position, True


def _parse(line: bytes, *, unsigned: bool = True) -> int | None:
    """Find where the fields of a line end, as ``parsePoint`` reads it; None if it is malformed up to there."""
    return run(_find_fields_end(line, unsigned=unsigned))


def _find_fields_end(line: bytes, *, unsigned: bool = True) -> Steps[int | None]:
    """Do that bit by bit."""
    series = _EXACT_SERIES.match(line)
    if series is None:
        return None
    start = position = series.end()
    equals = commas = steps = 0
    while (sign := line[position : position + 1]) != b" " and sign:
        steps += 1
        if steps % _OFTEN == 0:
            yield 0
        if sign == b"=":
            equals += 1
            position = _after_equals(line, position, unsigned=unsigned)
            if position < 0:
                return None
        elif sign == b'"' and equals > commas:
            position = _skip(_TO_FIELD_QUOTE, line, position + 1) + 1
            if position > len(line):
                return None
        else:
            commas += sign == b","
            position = _skip(_TO_FIELD_SIGN, line, position + (sign in b'",'))
    if equals != commas + 1 or not _PAIRS.fullmatch(line, start, position):
        return None
    return position


def _after_equals(line: bytes, position: int, *, unsigned: bool) -> int:
    """Find where to read on after the ``=`` here: behind a number or boolean, or at a quote; -1 if there is none."""
    if _MISSING.match(line, position):
        return -1
    position += 1
    if line[position] == _QUOTE:
        return position
    number = _NUMBER.match(line, position)
    if number is None:
        truth = _TRUTH.match(line, position)
        return truth.end() if truth else -1
    digits, kind = number.groups()
    if kind is None:
        valid = math.isfinite(float(number[0]))
    elif kind == b"i":
        valid = -(2**63) <= _integer(digits) < 2**63
    else:
        valid = unsigned and not digits.startswith(b"-") and _integer(digits) < 2**64
    return number.end() if valid else -1
