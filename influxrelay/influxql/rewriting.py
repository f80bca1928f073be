"""Statements with other words in them: the time of acceptance for ``now()``, nothing for passwords."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from influxrelay.influxql.ast import Span, Statement

REDACTED = "[REDACTED]"
_PASSWORDS = re.compile(
    # Of statements with a mistake in them nobody knows where the password ends: all up to the next one goes. These
    # are the places that InfluxDB looks at (influxql, sanitize.go), without its demand for blanks.
    r"""(?is)(\bpassword\s+for\b[^=;]*=\s*|\bwith\s+password\s*)('(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[^\s;]+)"""
)


def replaced(text: str, spans: Iterable[Span], replacement: str) -> str:
    """Return a text with something else in these places."""
    return _edited(text, [(start, end, replacement) for start, end in spans])


def _edited(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    pieces, end = [], 0
    for start, stop, replacement in sorted(edits):
        pieces += [text[end:start], replacement]
        end = stop
    return "".join([*pieces, text[end:]])


def statement_text(text: str, statement: Statement, now: int | None = None, without: Container[str] = ()) -> str:
    """Return one statement of a query.

    :param now: nanoseconds since the epoch, to stand in the place of ``now()``: as a duration literal, which InfluxDB
        takes for a time wherever it takes ``now()``.
    :param without: names of clauses that are left out.
    """
    start, end = statement.span
    edits = [(first - start, last - start, f"{now}ns") for first, last in statement.nows] if now is not None else []
    edits += [(first - start, last - start, "") for name, (first, last) in statement.clauses.items() if name in without]
    return _edited(text[start:end], edits)


def redacted(text: str, statements: Iterable[Statement] | None = None) -> str:
    """Return a query without its passwords, for logs.

    :param statements: those of the query; None where it could not be parsed.
    """
    if statements is None:
        return _PASSWORDS.sub(lambda found: found[1] + REDACTED, text)
    return replaced(text, (span for each in statements for span in each.passwords), REDACTED)
