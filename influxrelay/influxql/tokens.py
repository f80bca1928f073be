"""Read a query token by token: names, numbers, durations, regular expressions.

Tokens can be put back. As in InfluxDB's parser, a look at the next character passes over those that have been.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from influxrelay.core.expressions import why_invalid
from influxrelay.influxql.ast import Regex
from influxrelay.influxql.scanner import Scanner, Token

T = TypeVar("T")

_UNITS = {"ns": 1, "u": 10**3, "µ": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_UNITS |= {"d": 24 * _UNITS["h"], "w": 7 * 24 * _UNITS["h"]}
_DURATION_PART = re.compile(r"([0-9]+)(ns|ms|[uµsmhdw])")


class QueryError(ValueError):
    """A query that InfluxDB does not understand either."""

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(f"{problem} at character {position + 1}")


class NestingError(QueryError):
    """A query that is nested too deeply for us; InfluxDB may understand it."""


def nanoseconds(text: str) -> int:
    """Return a duration such as ``1h30m``, in nanoseconds.

    :raises ValueError: it is none, or too long for 64 bits.
    """
    total, end = 0, 0
    for found in _DURATION_PART.finditer(text):
        if found.start() != end:
            break
        number, end = int(found[1]), found.end()
        if number >= 2**63:
            raise ValueError(f"invalid duration {text}")
        total = (total + number * _UNITS[found[2]] + 2**63) % 2**64 - 2**63
    if end != len(text) or not text:
        raise ValueError(f"invalid duration {text}")
    if total < 0:
        raise ValueError(f"overflowed duration {text}")
    return total


class TokenReader:
    """Reads tokens and what is made of one or two of them.

    :param parameters: what stands for ``$name``: values as JSON has them.
    """

    def __init__(self, text: str, parameters: Mapping[str, Any] | None = None) -> None:
        self.scanner = Scanner(text)
        self._parameters = dict(parameters or {})
        self.seen: list[Token] = []
        self._put_back = 0

    # -- tokens

    def scan(self) -> Token:
        """Return the next token, spaces and comments too."""
        return self.next(self.scanner.scan)

    def next(self, scan: Callable[[], Token]) -> Token:
        """Return the token that was put back, or what ``scan`` finds."""
        if self._put_back:
            self._put_back -= 1
            token = self.seen[-1 - self._put_back]
        else:
            token = scan()
            self.seen.append(token)
        if token.kind == "PARAMETER" and token.value in self._parameters:
            return self._bound(token)
        return token

    def _bound(self, token: Token) -> Token:
        """Return what a parameter stands for (``params.go``)."""
        value = self._parameters[token.value]
        kind, text = "BAD", ""
        if isinstance(value, bool):
            kind = "TRUE" if value else "FALSE"
        elif isinstance(value, int):
            kind, text = "INTEGER", str(value)
        elif isinstance(value, float):
            kind, text = "NUMBER", repr(value)
        elif isinstance(value, str):
            kind, text = "STRING", value
        elif isinstance(value, dict) and len(value) == 1:
            ((name, text),) = value.items()
            kinds = {"identifier": "IDENT", "regex": "REGEX", "string": "STRING", "duration": "DURATION_VALUE"}
            kind = kinds.get(name, "BAD") if isinstance(text, str) else "BAD"
        return token._replace(kind=kind, value=str(text))

    def unscan(self) -> None:
        """Put the last token back."""
        self._put_back += 1

    def token(self) -> Token:
        """Return the next token that is neither space nor comment."""
        while (token := self.scan()).kind in ("SPACE", "COMMENT"):
            continue
        return token

    def take(self, *kinds: str) -> Token | None:
        """Return the next token if it is one of these, else leave it."""
        token = self.token()
        if token.kind in kinds:
            return token
        self.unscan()
        return None

    def expect(self, *kinds: str) -> Token:
        """Return the next token, which has to be one of these."""
        token = self.token()
        if token.kind not in kinds:
            raise self.error(token, *kinds)
        return token

    def error(self, token: Token, *expected: str) -> QueryError:
        """Return what to raise where something else was expected."""
        return QueryError(f"found {token.value or token.kind}, expected {', '.join(expected)}", token.start)

    def skip_space(self) -> None:
        """Skip spaces, but no comment."""
        if self.scan().kind != "SPACE":
            self.unscan()

    @property
    def last_end(self) -> int:
        """Where the last token that was read, and not put back, is over; spaces and comments do not count."""
        for index in range(len(self.seen) - self._put_back - 1, -1, -1):
            if self.seen[index].kind not in ("SPACE", "COMMENT"):
                return self.seen[index].end
        return 0

    def upcoming(self) -> int:
        """Return where the next token begins that is neither space nor comment, and read nothing."""
        for token in self.seen[len(self.seen) - self._put_back :]:
            if token.kind not in ("SPACE", "COMMENT"):
                return token.start
        before = self.scanner.position
        while (token := self.scanner.scan()).kind in ("SPACE", "COMMENT"):
            continue
        self.scanner.position = before
        return token.start

    def forget(self) -> None:
        """Keep only the tokens that have been put back: a statement begins."""
        del self.seen[: len(self.seen) - self._put_back]

    # -- names and values

    def name(self) -> str:
        """Read an identifier."""
        return self.expect("IDENT").value

    def string(self) -> Token:
        """Read a string."""
        return self.expect("STRING")

    def listed(self, read: Callable[[], T]) -> tuple[T, ...]:
        """Read one or more, with commas between them."""
        found = [read()]
        while self.take(","):
            found.append(read())
        return tuple(found)

    def integer(self, lowest: int, highest: int) -> int:
        """Read an integer within bounds."""
        token = self.expect("INTEGER")
        if not lowest <= int(token.value) <= highest:
            raise QueryError(f"invalid value {token.value}: must be {lowest} <= n <= {highest}", token.start)
        return int(token.value)

    def duration(self) -> int:
        """Read a duration, in nanoseconds; ``INF`` is 0."""
        token = self.expect("DURATION_VALUE", "INF")
        return 0 if token.kind == "INF" else self.nanoseconds_of(token)

    def nanoseconds_of(self, token: Token) -> int:
        """Return what a duration says."""
        try:
            return nanoseconds(token.value)
        except ValueError as error:
            raise QueryError(str(error), token.start) from None

    def segments(self) -> list[str]:
        """Read names with dots between them, three at most, of which those in the middle may be empty."""
        names = [self.name()]
        while self.scan().kind == ".":
            following = self.scanner.peek()
            if following in ("/", ":"):
                break
            names.append("" if following == "." else self.name())
        else:
            self.unscan()
        if len(names) > 3:
            raise QueryError("too many segments", self.last_end)
        return names

    def regex(self) -> Regex | None:
        """Read a regular expression, if one begins here."""
        if self.scanner.peek() in (" ", "\t", "\n", "\r"):
            self.skip_space()
        following = self.scanner.peek()
        if following == "$":
            is_regex = self.scan().kind == "REGEX"
            self.unscan()
            if not is_regex:
                return None
        elif following != "/":
            return None
        token = self.next(self.scanner.scan_regex)
        if token.kind != "REGEX":
            raise self.error(token, "regex")
        return self.compiled(token)

    def compiled(self, token: Token) -> Regex:
        """Return a regular expression, in RE2's syntax as in Go."""
        problem = why_invalid(token.value)
        if problem:
            raise QueryError(f"error parsing regexp: {problem}", token.start)
        return Regex(token.value)
