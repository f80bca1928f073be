"""Lines divided among shards, many at once.

What is known of a series is its shard in each epoch. So a line costs a cut at its first space and a look into a
dictionary, and what is made for it lasts no longer than its window of 256 KB is read. Timestamps are read one by one
only where lines beside each other belong to several epochs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import BytesIO

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.text import text
from influxrelay.lineprotocol.clean_lines import SERIES, STRING, fields
from influxrelay.lineprotocol.finished import WIDTHS
from influxrelay.lineprotocol.parser import PRECISIONS, window_end
from influxrelay.lineprotocol.scanner import BLANKS, Steps
from influxrelay.lineprotocol.splitting import read_tag, split_slowly
from influxrelay.sharding.placement import Epoch, NoShardError, ShardMap

_AROUND = BLANKS + b"\n"
_WINDOW = 256 * 1024  # bytes that are divided at once
_LONG = 512 * 1024  # bytes of lines that regular expressions do not look at in one go
_MEMORY = 16 * 1024  # series remembered for each epoch
_MEMORY_LENGTH = 512  # bytes of the longest that is remembered
_SPECIAL = re.compile(rb"[\\,= ]")  # what is escaped in the name of a tag
# Clean lines, each with its series; what is not clean is matched as a whole, so that the search for more ends there.
_LINES = re.compile(
    rb"((" + SERIES + rb") " + fields(STRING + rb'|[^\\",= \n]++') + rb" -?+[0-9]++(?:\n|\Z))|(.+)", re.DOTALL
)
_TIME = re.compile(rb" (-?[0-9]{1,19})[ \t\0]*\n?\Z")


class LineDivider:
    """Divides bodies of line protocol among the shards of a map."""

    def __init__(self, shards: ShardMap) -> None:
        self._shards = shards
        self._names = shards.shards
        self._places = [_Places(shards, epoch) for epoch in shards.epochs]

    def divide_slowly(self, body: bytes, precision: bytes) -> Steps[dict[str, bytes]]:
        """Return the lines of each shard that gets any, in their order, some lines at a time.

        A line without a readable series goes where the default shard is, or to the first shard, so that a backend can
        say what is wrong with it. Blank lines and comments go nowhere. A newline is behind each line of which that is
        not the last one of the body, and not there: what is escaped at the end of a line may depend on it.

        :param body: every line of it has its timestamp, in this precision.
        :return: the body itself where one shard gets all of it.
        :raises InvalidRequest: a line lacks the tag, and there is no default shard.
        """
        divide = self._divide_any if b'"' in body or b"\\" in body else self._divide_clean
        pieces: list[list[bytes]] = [[] for _ in self._names]
        try:
            for some in divide(body, precision):
                if some is None:
                    yield 0
                    continue
                some.pop()  # what goes nowhere
                for piece, lines in zip(pieces, some, strict=True):
                    if lines:
                        piece.append(b"".join(lines))
        except NoShardError:
            tag = text(self._shards.key.tag or b"")
            raise InvalidRequest(400, f'unable to shard: a line lacks the tag "{tag}"') from None
        filled = [index for index, piece in enumerate(pieces) if piece]
        if len(filled) == 1:
            return {self._names[filled[0]]: body}
        return {self._names[index]: b"".join(pieces[index]) for index in filled}

    def _divide_clean(self, body: bytes, precision: bytes) -> Iterator[list[list[bytes]] | None]:
        """Yield the lines of each shard, and last those for none, window by window, and None for a pause between them.

        :param body: without quotes and backslashes: each newline in it ends a line.
        """
        position = 0
        while position < len(body):
            if position:
                yield None
            end = body.find(b"\n", position + _WINDOW) + 1 or len(body)
            lines = BytesIO(body[position:end]).readlines()  # which is faster than split, as it searches by memchr(3)
            number = self._common_epoch(lines, precision)
            found = self._empty()
            try:
                if number is None:
                    raise _IndentedError  # noqa: TRY301 (it has to be read line by line, too)
                places = self._places[number]
                for line in lines:
                    found[places[line.partition(b" ")[0]]].append(line)
            except _IndentedError:
                found = self._empty()
                for line in lines:
                    series = line.lstrip(BLANKS).partition(b" ")[0]
                    found[self._place(line, series, precision)].append(line)
            yield found
            position = end

    def _divide_any(self, body: bytes, precision: bytes) -> Iterator[list[list[bytes]] | None]:
        """Do what :meth:`_divide_clean` does with any body: many lines at once up to the first that is odd."""
        position = 0
        while position < len(body):
            if position:
                yield None
            end = window_end(body, position)
            if end - position > _LONG:
                yield from self._divide_slowly(body, position, precision)
                return
            lines, series, rests = zip(*_LINES.findall(body, position, end), strict=True)
            if rests[-1]:
                lines, series = lines[:-1], series[:-1]
            number = self._common_epoch(lines, precision) if lines else None
            found = self._empty()
            for line, each in zip(lines, series, strict=True):
                place = self._place(line, each, precision) if number is None else self._places[number][each]
                found[place].append(line)
            yield found
            position = end - len(rests[-1])
            if rests[-1]:
                yield from self._divide_slowly(body, position, precision)
                return

    def _divide_slowly(self, body: bytes, position: int, precision: bytes) -> Iterator[list[list[bytes]] | None]:
        """Do what :meth:`_divide_clean` does with the rest of a body."""
        rest = body[position:]
        for start, lines, every in split_slowly(rest):
            found = self._empty()
            position = start
            for line, series in zip(lines, every, strict=True):
                position += len(line) + 1
                whole = line + b"\n" if position <= len(rest) else line
                found[self._place(line, series, precision)].append(whole)
            yield found
            yield None

    def _empty(self) -> list[list[bytes]]:
        return [[] for _ in range(len(self._names) + 1)]

    def _place(self, line: bytes, series: bytes, precision: bytes) -> int:
        """Return the number of a line's shard."""
        series = series.strip(_AROUND)
        return self._places[self._epoch_of(line, precision)][series] if series else len(self._names)

    def _common_epoch(self, lines: Sequence[bytes], precision: bytes) -> int | None:
        """Return the number of the epoch of all lines, if they have one and timestamps of today's usual width.

        Then timestamps compare as text does.
        """
        if len(self._places) == 1:
            return 0
        width = WIDTHS[precision] + 1
        ends = [line[-width - 1 : -1] for line in lines]
        if not lines[-1].endswith(b"\n"):
            ends[-1] = lines[-1][-width:]
        first, last = min(ends), max(ends)
        joined = b"".join(ends)
        is_usual = len(joined) == width * len(ends) and first[:1] == last[:1] == b" "
        if not is_usual or joined.translate(None, b"0123456789") != b" " * len(ends):
            return None
        number = self._number_at(first, precision)
        return number if number == self._number_at(last, precision) else None

    def _epoch_of(self, line: bytes, precision: bytes) -> int:
        """Return the number of a line's epoch: the last one's if it has no timestamp, which a backend will refuse."""
        if len(self._places) == 1:
            return 0
        found = _TIME.search(line)
        return len(self._places) - 1 if found is None else self._number_at(found[1], precision)

    def _number_at(self, digits: bytes, precision: bytes) -> int:
        return self._shards.number_at(int(digits) * PRECISIONS[precision])


class _IndentedError(Exception):
    """A line begins with a space, so that its series is not what precedes the first one."""


class _Places(dict[bytes, int]):
    """The numbers of the shards of series in an epoch: a dictionary that fills itself.

    Blank lines and comments have the number behind those of all shards.
    """

    def __init__(self, shards: ShardMap, epoch: Epoch) -> None:
        super().__init__()
        self._shards = shards
        self._epoch = epoch
        self._numbers = {name: index for index, name in enumerate(shards.shards)}
        tag = shards.key.tag
        self._sign = None if tag is None or _SPECIAL.search(tag) else b"," + tag + b"="

    def __missing__(self, series: bytes) -> int:
        if not series:
            raise _IndentedError
        number = self._find(series.strip(_AROUND))
        if len(self) >= _MEMORY:
            self.clear()
        if len(series) <= _MEMORY_LENGTH:
            self[series] = number
        return number

    def _find(self, series: bytes) -> int:
        if not series or series.startswith(b"#"):
            return len(self._numbers)
        found = self._read_quickly(series) or read_tag(series, self._shards.key.tag)
        if found is None:
            return self._numbers[self._shards.default] if self._shards.default else 0
        if found:
            return self._numbers[self._epoch.place(found)]
        if self._shards.default is None:
            raise NoShardError
        return self._numbers[self._shards.default]

    def _read_quickly(self, series: bytes) -> bytes:
        """Return the key of a series without escapes; empty where it has none, or a closer look is needed."""
        if b"\\" in series:
            return b""
        if self._sign is not None:
            series = series.partition(self._sign)[2]
        elif self._shards.key.tag is not None:
            return b""
        return series.partition(b",")[0]
