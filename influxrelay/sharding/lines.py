"""Lines divided among shards, many at once.

What is known of a series is its shard in each epoch. So a line costs a cut at its first space and a look into a
dictionary; nothing is made for it that lasts. Timestamps are read one by one only where lines beside each other belong
to several epochs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import compress

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.text import text
from influxrelay.lineprotocol.parser import PRECISIONS, WIDTHS, window_end
from influxrelay.lineprotocol.scanner import BLANKS, OFTEN, Steps
from influxrelay.lineprotocol.splitting import read_tag, split_slowly
from influxrelay.sharding.placement import Epoch, ShardMap

_MOST = 255  # shards whose numbers fit a byte beside that of no shard
_NOWHERE = 255  # the number of blank lines and comments, which are in no shard
_SELECT = [bytes(number == index for number in range(256)) for index in range(_MOST)]
_MEMORY = 16 * 1024  # series remembered for each epoch
_MEMORY_LENGTH = 512  # bytes of the longest that is remembered
_SPECIAL = re.compile(rb"[\\,= ]")  # what is escaped in the name of a tag
_TIME = re.compile(rb" (-?[0-9]{1,19})[ \t\0]*\Z")


class LineDivider:
    """Divides bodies of line protocol among the shards of a map, at most 255."""

    def __init__(self, shards: ShardMap) -> None:
        self._shards = shards
        self._names = shards.shards
        self._places = [_Places(shards, epoch) for epoch in shards.epochs]

    def divide_slowly(self, body: bytes, precision: bytes) -> Steps[dict[str, bytes]]:
        """Return the lines of each shard that gets any, in their order, some lines at a time.

        A line without a readable series goes where the default shard is, or to the first shard, so that a backend can
        say what is wrong with it. Blank lines and comments go nowhere.

        :param body: every line of it has its timestamp, in this precision.
        :return: the body itself where one shard gets all of it.
        :raises InvalidRequest: a line lacks the tag, and there is no default shard.
        """
        pieces: list[list[bytes]] = [[] for _ in self._names]
        last = _NOWHERE  # the shard of the last line
        for lines, series in _split(body):
            if lines:
                indexes = yield from self._indexes(lines, series, precision)
                last = indexes[-1]
                for index in set(indexes).difference((_NOWHERE,)):
                    pieces[index].append(b"\n".join(compress(lines, indexes.translate(_SELECT[index]))))
            yield 0
        filled = [index for index, some in enumerate(pieces) if some]
        if len(filled) == 1:
            return {self._names[filled[0]]: body}
        # A newline behind each line but the last: what is escaped at the end of a line may depend on it.
        ends = body.endswith(b"\n")
        return {
            self._names[index]: b"\n".join((*pieces[index], b"") if ends or index != last else pieces[index])
            for index in filled
        }

    def _indexes(self, lines: Sequence[bytes], series: Sequence[bytes], precision: bytes) -> Steps[bytes]:
        """Return the number of each line's shard."""
        try:
            number = self._common_epoch(lines, precision)
            if number is not None:
                return bytes(map(self._places[number].__getitem__, series))
            indexes = bytearray()
            for line, each in zip(lines, series, strict=True):
                indexes.append(self._places[self._epoch_of(line, precision)][each])
                if len(indexes) % OFTEN == 0:
                    yield 0
            return bytes(indexes)
        except LookupError:
            raise InvalidRequest(
                400, f'unable to shard: a line lacks the tag "{text(self._shards.key.tag or b"")}"'
            ) from None

    def _common_epoch(self, lines: Sequence[bytes], precision: bytes) -> int | None:
        """Return the number of the epoch of all lines, if they have one and timestamps of today's usual width.

        Then timestamps compare as text does.
        """
        if len(self._places) == 1:
            return 0
        width = WIDTHS[precision] + 1
        ends = [line[-width:] for line in lines]
        first, last = min(ends), max(ends)
        joined = b"".join(ends)
        is_usual = len(joined) == width * len(ends) and first[:1] == last[:1] == b" "
        if not is_usual or joined.translate(None, b"0123456789") != b" " * len(ends):
            return None
        number = self._number_at(first, precision)
        return number if number == self._number_at(last, precision) else None

    def _epoch_of(self, line: bytes, precision: bytes) -> int:
        """Return the number of a line's epoch: the last one's if it has no timestamp, which a backend will refuse."""
        found = _TIME.search(line)
        return len(self._places) - 1 if found is None else self._number_at(found[1], precision)

    def _number_at(self, digits: bytes, precision: bytes) -> int:
        return self._shards.number_at(int(digits) * PRECISIONS[precision])


def _split(body: bytes) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield some lines at a time, at times none, and what may be the series of each: blank where the line is blank."""
    if b'"' in body or b"\\" in body:
        for _, lines, series in split_slowly(body):
            yield lines, series
        return
    position = 0
    while position < len(body):
        end = window_end(body, position)
        lines = body[position:end].removesuffix(b"\n").split(b"\n")
        series = [line.partition(b" ")[0] for line in lines]
        if b"" in series:  # a blank line, or one that begins with a space
            series = [line.lstrip(BLANKS).partition(b" ")[0] for line in lines]
        yield lines, series
        position = end


class _Places(dict[bytes, int]):
    """The numbers of the shards of series in an epoch: a dictionary that fills itself."""

    def __init__(self, shards: ShardMap, epoch: Epoch) -> None:
        super().__init__()
        self._shards = shards
        self._epoch = epoch
        self._numbers = {name: index for index, name in enumerate(shards.shards)}
        tag = shards.key.tag
        self._sign = None if tag is None or _SPECIAL.search(tag) else b"," + tag + b"="

    def __missing__(self, series: bytes) -> int:
        number = self._find(series.lstrip(BLANKS))
        if len(self) >= _MEMORY:
            self.clear()
        if len(series) <= _MEMORY_LENGTH:
            self[series] = number
        return number

    def _find(self, series: bytes) -> int:
        if not series or series.startswith(b"#"):
            return _NOWHERE
        found = self._read_quickly(series) or read_tag(series, self._shards.key.tag)
        if found is None:
            return self._numbers[self._shards.default] if self._shards.default else 0
        if found:
            return self._numbers[self._epoch.place(found)]
        if self._shards.default is None:
            raise LookupError
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
