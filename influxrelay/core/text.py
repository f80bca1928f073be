"""Values in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime


def text(data: bytes) -> str:
    """Return bytes as text, whatever they are."""
    return data.decode("utf-8", "backslashreplace")


def printable(words: str) -> str:
    r"""Return a text with its bytes that are not UTF-8, which stand in it as surrogates, as ``\xff``."""
    return text(words.encode("utf-8", "surrogateescape"))


def shortened(words: str, limit: int) -> str:
    """Return the beginning of a text."""
    return words if len(words) <= limit else words[: limit - 1] + "…"


def iso(when: float) -> str:
    """Return a time as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_nanoseconds(when: int) -> str:
    """Return a time, in nanoseconds since 1970, as RFC 3339 in UTC, with as many digits as it needs."""
    seconds, fraction = divmod(when, 10**9)
    shown = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{shown}.{fraction:09}".rstrip("0") + "Z" if fraction else f"{shown}Z"


def size(count_of_bytes: int) -> str:
    """Return a size in the unit that suits it."""
    if count_of_bytes < 1024:
        return f"{count_of_bytes} B"
    amount = count_of_bytes / 1024
    for unit in ("KiB", "MiB"):
        if amount < 1023.95:
            return f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def age(seconds: float) -> str:
    """Return a span of time in the two units that matter."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def count(number: int, what: str) -> str:
    """Format a count with its noun."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def times(number: int) -> str:
    """Format how often something has happened."""
    return "once" if number == 1 else f"{number} times"


def tally(counts: Mapping[str, int]) -> str:
    """Format counts by their reasons: "3 (invalid: 2, 503: 1)"."""
    reasons = ", ".join(f"{reason}: {number}" for reason, number in counts.items() if number)
    return f"{sum(counts.values())} ({reasons})" if reasons else "0"
