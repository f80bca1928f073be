"""Points as values, to compare what servers hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import attrs

from testing.influx_grammar import read, scan_field_value

NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
Key = tuple[str, tuple[tuple[str, str], ...], int]
Contents = dict[Key, dict[str, Any]]
"""Fields by measurement, tags and time."""


@attrs.frozen
class Parsed:
    """A line as a server reads it.

    :ivar number: of the line, from 1.
    :ivar key: None for a malformed line, and no time for one without a timestamp.
    """

    number: int
    text: str
    key: tuple[str, tuple[tuple[str, str], ...], int | None] | None
    fields: dict[str, Any]


def parse(body: bytes) -> Iterator[Parsed]:
    """Yield what InfluxDB reads in a body."""
    for number, line in enumerate(read(body), 1):
        text = line.text.decode("utf-8", "replace")
        if not line.accepted:
            yield Parsed(number, text, None, {})
            continue
        measurement, *tags = (each.decode() for each in re.split(rb"(?<!\\),", line.series))
        pairs = [re.split(r"(?<!\\)=", tag, maxsplit=1) for tag in tags]
        named = tuple(sorted((_plain(name), _plain(value)) for name, value in pairs))
        time = None if line.time is None else int(line.time)
        yield Parsed(number, text, (_plain(measurement), named, time), dict(_fields(line.fields)))


def _plain(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


def _fields(text: bytes) -> Iterator[tuple[str, Any]]:
    while text:
        found = re.search(rb"(?<!\\)=", text)
        assert found is not None
        name, text = text[: found.start()], text[found.end() :]
        end = scan_field_value(text)
        yield _plain(name.decode()), _value(text[:end].decode())
        text = text[end + 1 :]


def _value(text: str) -> Any:
    if text.startswith('"'):
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if text[0] in "tTfF":
        return text[0] in "tT"
    return int(text[:-1]) if text[-1] in "iu" else float(text)
