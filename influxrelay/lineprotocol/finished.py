"""Bodies in which every line has its timestamp already, as nearly all of them are: found out fast, and counted.

The regular expressions look for timestamps of today's usual width in bodies without quotes and backslashes, where each
newline ends a line. They step from byte to byte; what the lines of a large body have in common lets them skip most.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

WIDTHS: Final = {b"": 19, b"n": 19, b"ns": 19, b"u": 16, b"ms": 13, b"s": 10, b"m": 8, b"h": 6}
"""How many digits a timestamp of today has, by precision."""

# Where there is a line without one. The search for a pattern that starts with one literal byte is several times as fast
# as a match of all lines.
_GAP = {precision: re.compile(rb"\n(?<! [0-9]{%d}\n)" % width) for precision, width in WIDTHS.items()}
_LAST = {precision: re.compile(rb" [0-9]{%d}\Z" % width) for precision, width in WIDTHS.items()}

_COUNTED = 16 * 1024  # bytes of the largest body whose lines are always counted one by one
_SAMPLE = 2048  # bytes of each sample of a larger one
_COPIED = 1024 * 1024  # bytes that are copied at once
_ROUNDS = (256, 32, 4, 1)  # lines that one match takes
_STEP = 16  # bytes by which skips differ, so that there are few patterns
_FEWEST = 2.5  # as many bytes as the skip has a line at most, or to skip does not pay
_LONGEST_SKIP = 512
_MARGIN = 4  # bytes by which a line may be shorter than those that are looked at


def finished_lines(body: bytes, precision: bytes) -> int:
    """Return how many lines there are, as :func:`count_lines` does, if every line ends in a timestamp of usual width.

    0 means that something else may be in the body, and has to be read.
    """
    if b'"' in body or b"\\" in body:
        return 0
    if body[-1:] != b"\n" and _LAST[precision].search(body, max(len(body) - 20, 0)) is None:
        return 0
    if len(body) > _COUNTED:
        lines = _newlines(body)
        if _have_one_shape(body, lines, WIDTHS[precision]):
            return lines + (body[-1:] != b"\n")
    if _GAP[precision].search(body) is not None:
        return 0
    if len(body) > _COUNTED:
        return count_lines(body)
    return len(body) - len(body.replace(b"\n", b"")) + (body[-1:] != b"\n")


def is_finished(body: bytes, precision: bytes) -> bool:
    """Tell whether every line ends in a timestamp of today's usual width, so that nothing else has to be read.

    False means nothing.
    """
    return finished_lines(body, precision) > 0


def _have_one_shape(body: bytes, lines: int, width: int) -> bool:
    """Tell whether so many lines end in timestamps, if they are of nearly the same length; False means nothing.

    Each match goes from a newline over some bytes at once, on to a blank, and over a timestamp to another newline. If
    that makes as many lines as there are newlines, there is none in what was skipped.
    """
    skip = _skip(body, lines, width)
    position = 0
    for number in _ROUNDS if skip else ():
        match = _pattern(skip, width, number).match
        while lines >= number:
            found = match(body, position)
            if found is None:
                return False
            position = found.end()
            lines -= number
    return skip > 0


def _skip(body: bytes, lines: int, width: int) -> int:
    """Return how many bytes there are in each line, to all appearances, before the blank at its timestamp; or 0."""
    shortest = len(body)
    for start in (0, (len(body) - _SAMPLE) // 2, len(body) - _SAMPLE):
        sample = body[start : start + _SAMPLE].split(b"\n")
        if len(sample) < 3:
            return 0
        shortest = min(shortest, *map(len, sample[1:-1]))
    skip = min((shortest - width - 1 - _MARGIN) // _STEP * _STEP, _LONGEST_SKIP)
    return skip if skip > 0 and skip * _FEWEST >= len(body) / lines else 0


@lru_cache(maxsize=1024)
def _pattern(skip: int, width: int, lines: int) -> re.Pattern[bytes]:
    return re.compile(rb"(?s:.{%d}+[^ ]*+ [0-9]{%d}+\n){%d}+" % (skip, width, lines))


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
    if not lines and size <= _COPIED:
        return _newlines(body) + (body[-1:] not in b"\n")
    if not lines:  # they are long
        length = body.rfind(b"\n", 0, _COPIED) + 1 or size
        lines = _newlines(body[:length]) if length < size else 1
    return round(size * lines / length)


def _newlines(body: bytes) -> int:
    # CPython 3.11 deletes bytes at three times the speed at which it counts them.
    return len(body) - len(body.replace(b"\n", b""))
