"""Readers of what is configured of shards."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from influxrelay.config.readers import NotAllowed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)")
_NANO = 10**9


def key(value: object) -> str | None:
    """Read what decides to which shard a line goes."""
    if value == "":
        return None
    if value == "measurement" or (isinstance(value, str) and value.isprintable() and re.fullmatch("tag:.+", value)):
        return str(value)
    raise NotAllowed('"measurement", or "tag:" and the name of a tag')


def name(value: object) -> str:
    """Read a shard's name, which is also that of a directory."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise NotAllowed("a name of at most 64 letters, digits, '.', '_' and '-', a letter or digit first")
    return value


def weight(value: object) -> float:
    """Read a shard's weight."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 10**6:
        raise NotAllowed("a number above 0, at most 1000000")
    return float(value)


def time(value: object) -> int | None:
    """Read a time, in nanoseconds since 1970; TOML's own times may be given too, if they have an offset."""
    allowed = 'a time with an offset, such as "2026-12-01T00:00:00Z"'
    if value == "":
        return None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return _nanoseconds(value) + value.microsecond * 1000
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise NotAllowed(allowed)
    day, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day.upper()}{zone.upper().replace('Z', '+00:00')}")
    except ValueError:
        raise NotAllowed(allowed) from None
    return _nanoseconds(moment) + int((fraction or "").ljust(9, "0"))


def _nanoseconds(moment: datetime) -> int:
    since = moment.replace(microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * _NANO


def pins(value: object) -> tuple[tuple[str, str], ...]:
    """Read a table of keys with their shards."""
    allowed = 'a table such as { "acme" = "s2" }, from a value of the key to a shard'
    if not isinstance(value, dict):
        raise NotAllowed(allowed)
    for each, shard in value.items():
        if not each:
            raise NotAllowed(allowed, "an empty key, whose place is the default shard")
        if not isinstance(shard, str) or not shard:
            raise NotAllowed(allowed, "a shard that is no name")
    return tuple((each, str(shard)) for each, shard in value.items())
