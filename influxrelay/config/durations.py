"""Durations as Go writes them: ``"500ms"``, ``"1m30s"``."""

from __future__ import annotations

import re

_MICRO = 1_000
_UNITS = {
    "ns": 1,
    "us": _MICRO,
    "\u00b5s": _MICRO,  # the micro sign
    "\u03bcs": _MICRO,  # the Greek letter
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_SECOND = _UNITS["s"]
_LONGEST = 2**63  # Go counts nanoseconds in an int64
_TERM = re.compile(r"(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(" + "|".join(sorted(_UNITS, key=len, reverse=True)) + ")")


def parse_duration(text: str) -> float:
    """Return the seconds of a duration in the grammar of Go's ``time.ParseDuration``.

    An optional sign, then decimal numbers, each with its unit (``ns``, ``us``, ``µs``, ``ms``, ``s``, ``m``, ``h``); or
    a bare ``0``. As in Go, fractions of a nanosecond are cut off.

    :raises ValueError: the text is not a duration, or exceeds an int64 of nanoseconds (292 years).
    """
    negative = text.startswith("-")
    rest = text[1:] if text.startswith(("-", "+")) else text
    if rest == "0":
        return 0.0
    nanoseconds = at = 0
    while match := _TERM.match(rest, at):
        whole, fraction, unit = match.groups("")
        nanoseconds += _scaled(whole.lstrip("0"), fraction, _UNITS[unit])
        at = match.end()
    if not rest or at != len(rest) or nanoseconds >= _LONGEST + negative:
        raise ValueError("not a duration")
    return (-nanoseconds if negative else nanoseconds) / _SECOND


def _scaled(whole: str, fraction: str, unit: int) -> int:
    if len(whole) > len(str(_LONGEST)):
        return _LONGEST + 1
    fraction = fraction[:18]  # more digits make no difference
    scale: int = 10 ** len(fraction)
    return int(whole or "0") * unit + int(fraction or "0") * unit // scale
