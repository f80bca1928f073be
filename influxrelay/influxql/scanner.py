"""Cut InfluxQL into tokens, as InfluxDB does (``influxdata/influxql``, ``scanner.go``).

A slash begins a regular expression or stands for a division: only the parser knows which, and asks for it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_KEYWORDS = """
ALL ALTER ANALYZE ANY AS ASC BEGIN BY CARDINALITY CREATE CONTINUOUS DATABASE DATABASES DEFAULT DELETE DESC DESTINATIONS
DIAGNOSTICS DISTINCT DROP DURATION END EVERY EXACT EXPLAIN FIELD FOR FROM GRANT GRANTS GROUP GROUPS IN INF INSERT INTO
KEY KEYS KILL LIMIT MEASUREMENT MEASUREMENTS NAME OFFSET ON ORDER PASSWORD POLICY POLICIES PRIVILEGES QUERIES QUERY READ
REPLICATION RESAMPLE RETENTION REVOKE SELECT SERIES SET SHOW SHARD SHARDS SLIMIT SOFFSET STATS SUBSCRIPTION
SUBSCRIPTIONS TAG TO USER USERS VALUES WHERE WITH WRITE AND OR TRUE FALSE
"""
KEYWORDS = frozenset(_KEYWORDS.split())
"""Words that are no identifiers unless they are quoted; case does not matter."""

_WORD = re.compile(r"[A-Za-z0-9_]*")
_SPACE = re.compile(r"[ \t\n\r]+")
_NUMBER = re.compile(r"\d*\.\d+|\d+\.?")
_DURATION = re.compile(r"\d+[A-Za-zµ][A-Za-zµ0-9]*")
_LINE_COMMENT = re.compile(r"--[^\n\r]*(?:\r\n|[\n\r])?")
_BLOCK_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_OPERATOR = re.compile(r"=~|!~|!=|<>|>=|<=|::|[-+*/%&|^=<>(),;:.]")
_ESCAPES = {"n": "\n", "\\": "\\", '"': '"', "'": "'"}


class Token(NamedTuple):
    """A piece of a query.

    :ivar kind: a keyword or an operator itself, or ``IDENT``, ``STRING``, ``NUMBER``, ``INTEGER``, ``DURATION_VALUE``,
        ``PARAMETER``, ``REGEX``, ``SPACE``, ``COMMENT``, ``BAD`` (it cannot be read), ``EOF``.
    :ivar value: what an identifier, a string, a number or a regular expression says, without quotes and escapes.
    :ivar start: where it begins in the query, and ``end``: where it is over, in characters.
    """

    kind: str
    value: str
    start: int
    end: int


class Scanner:
    """Reads one token after the other.

    :ivar position: of the next character.
    """

    def __init__(self, text: str) -> None:
        self._text = text.partition("\0")[0]  # a NUL is the end for InfluxDB
        self.position = 0

    def peek(self) -> str:
        """Return the next character; empty at the end."""
        return self._text[self.position : self.position + 1]

    def scan(self) -> Token:  # noqa: PLR0911 (one for each kind)
        """Read the next token."""
        text, start = self._text, self.position
        first = text[start : start + 1]
        if not first:
            return Token("EOF", "", start, start)
        if found := _SPACE.match(text, start):
            return self._token("SPACE", "", found.end())
        if ("a" <= first <= "z") or ("A" <= first <= "Z") or first in '_"':
            return self._word(start, lookup=True)
        if first == "$":
            token = self._word(start + 1, lookup=False)
            return token._replace(kind="PARAMETER", start=start) if token.kind == "IDENT" else token
        if first == "'":
            return self._string(start, start)
        if "0" <= first <= "9" or (first == "." and "0" <= text[start + 1 : start + 2] <= "9"):
            return self._number()
        if found := _LINE_COMMENT.match(text, start):
            return self._token("COMMENT", "", found.end())
        if text.startswith("/*", start):
            comment = _BLOCK_COMMENT.match(text, start)
            return self._token("COMMENT" if comment else "BAD", "", comment.end() if comment else len(text))
        if found := _OPERATOR.match(text, start):
            return self._token("!=" if found[0] == "<>" else found[0], found[0], found.end())
        return self._token("BAD", first, start + 1)

    def scan_regex(self) -> Token:
        r"""Read a regular expression between slashes; ``\/`` stands for a slash."""
        text, start = self._text, self.position
        if text[start : start + 1] != "/":
            return self._token("BAD", "", start)
        at = start + 1
        pieces: list[str] = []
        while (character := text[at : at + 1]) not in ("", "\n", "\r"):
            at += 1
            if character == "/":
                return self._token("REGEX", "".join(pieces), at)
            if character == "\\" and text[at : at + 1] == "/":
                character, at = "/", at + 1
            pieces.append(character)
        return self._token("BAD", "".join(pieces), at)

    def _token(self, kind: str, value: str, end: int) -> Token:
        token = Token(kind, value, self.position, end)
        self.position = end
        return token

    def _word(self, at: int, *, lookup: bool) -> Token:
        """Read an identifier or a keyword; a quoted string right behind a bare word replaces it, as in InfluxDB."""
        start = self.position
        found = _WORD.match(self._text, at)
        end = found.end() if found else at
        if self._text[end : end + 1] == '"':
            return self._string(end, start)._replace(start=start)
        word = self._text[at:end]
        if lookup and word.upper() in KEYWORDS:
            return self._token(word.upper(), "", end)
        return self._token("IDENT", word, end)

    def _string(self, at: int, start: int) -> Token:
        """Read a quoted string or identifier, whose quote is at ``at``."""
        text, quote = self._text, self._text[at]
        kind = "IDENT" if quote == '"' else "STRING"
        at += 1
        pieces: list[str] = []
        while (character := text[at : at + 1]) not in ("", "\n", "\r"):
            at += 1
            if character == quote:
                self.position = start
                return self._token(kind, "".join(pieces), at)
            if character == "\\":
                escaped = _ESCAPES.get(text[at : at + 1])
                if escaped is None:
                    break
                character, at = escaped, at + 1
            pieces.append(character)
        return self._token("BAD", "".join(pieces), at)

    def _number(self) -> Token:
        """Read an integer, a number with a fraction or a duration."""
        text, start = self._text, self.position
        if found := _DURATION.match(text, start):
            return self._token("DURATION_VALUE", found[0], found.end())
        number = _NUMBER.match(text, start)
        assert number is not None  # noqa: S101 (the caller has seen a digit)
        if "." in number[0]:
            return self._token("NUMBER", number[0].removesuffix("."), number.end())
        return self._token("INTEGER", number[0], number.end())
