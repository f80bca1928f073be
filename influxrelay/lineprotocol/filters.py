"""Filters: which lines an output gets, by their measurements and the keys of their tags.

The expressions are RE2's, which are Go's: the time for one grows with the name that it looks at, and never more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import compress

from influxrelay.core.expressions import compile_expression
from influxrelay.lineprotocol.parser import is_blank_slowly
from influxrelay.lineprotocol.scanner import Steps, run
from influxrelay.lineprotocol.splitting import read_series, split_lines, split_slowly

_MEMORY = 8192  # series, measurements and keys remembered by each filter
_MEMORY_LENGTH = 512  # bytes of the longest that is remembered


class Filter:
    """What an output takes: lines whose measurement has a match for each of some expressions, and whose tags' keys all
    have one for each of some others.

    What has no readable series is taken: comments, blank lines, and malformed ones, so that the backend can say what is
    wrong. Filters of the same expressions are equal.
    """  # noqa: D205 (one sentence)

    def __init__(self, measurement: Iterable[str], tag: Iterable[str]) -> None:
        self._measurement = tuple(measurement)
        self._tag = tuple(tag)
        self._takes_measurement = _Verdicts(_matcher(self._measurement))
        self._takes_tag = _Verdicts(_matcher(self._tag))
        self._takes = _Verdicts(self._decide)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and (self._measurement, self._tag) == (other._measurement, other._tag)

    def __hash__(self) -> int:
        return hash((self._measurement, self._tag))

    def judge(self, series: Iterable[bytes]) -> list[bool]:
        """Tell which lines it takes."""
        takes = self._takes
        return [takes[each] for each in series]

    def judge_slowly(self, series: Iterable[bytes]) -> Steps[list[bool]]:
        """Do what :meth:`judge` does, a name at a time; names seen before take nearly none."""
        takes, verdicts = self._takes, []
        for each in series:
            verdict = takes.get(each)
            if verdict is None:
                verdict = yield from self._decide_slowly(each)
                takes.keep(each, verdict=verdict)
                yield 0
            verdicts.append(verdict)
        return verdicts

    def _decide(self, series: bytes) -> bool:
        return run(self._decide_slowly(series))

    def _decide_slowly(self, series: bytes) -> Steps[bool]:
        names = read_series(series)
        if names is None:
            return True
        measurement, keys = names
        if not self._takes_measurement[measurement]:
            return False
        for key in keys:
            if key not in self._takes_tag:
                yield 0
            if not self._takes_tag[key]:
                return False
        return True

    def pick(self, lines: Sequence[bytes]) -> list[bytes]:
        """Return which it takes of some valid lines."""
        lines, series = split_lines(b"\n".join(lines))
        return list(compress(lines, self.judge(series)))


class _Verdicts(dict[bytes, bool]):
    """Decides, and remembers what it has decided."""

    def __init__(self, decide: Callable[[bytes], bool]) -> None:
        super().__init__()
        self._decide = decide

    def __missing__(self, text: bytes) -> bool:
        verdict = self._decide(text)
        self.keep(text, verdict=verdict)
        return verdict

    def keep(self, text: bytes, *, verdict: bool) -> None:
        """Remember what is decided about a text, unless that is long."""
        if len(text) <= _MEMORY_LENGTH:
            if len(self) >= _MEMORY:
                self.clear()
            self[text] = verdict


def _matcher(expressions: Iterable[str]) -> Callable[[bytes], bool]:
    """Return what tells whether a name has a match for each; what is no UTF-8 in it counts as U+FFFD, as in Go."""
    searches = [compile_expression(each).search for each in expressions]

    def match(name: bytes) -> bool:
        if not name.isascii():
            name = name.decode(errors="replace").encode()
        return all(search(name) is not None for search in searches)

    return match


def divide(body: bytes, filters: Sequence[Filter]) -> tuple[list[bytes], int]:
    """Take out of a body what each filter does not take; what is left stays byte for byte, and in order.

    :return: for each filter what is left, empty if that is no line to be stored; and how many lines none of them takes.
    """
    return run(divide_slowly(body, filters))


def divide_slowly(body: bytes, filters: Sequence[Filter]) -> Steps[tuple[list[bytes], int]]:
    """Do what :func:`divide` does, a name or a millisecond or so at a time."""
    kept: list[list[bytes] | None] = [None] * len(filters)  # None as long as nothing is taken out
    unwanted = 0
    for start, lines, series in split_slowly(body):
        grown, verdicts = 0, []
        for number, each in enumerate(filters):
            taken = yield from each.judge_slowly(series)
            verdicts.append(taken)
            pieces = kept[number]
            if pieces is None:
                if all(taken):
                    continue
                pieces = kept[number] = [body[: start - 1]] if start else []
            if any(taken):
                pieces.append(b"\n".join(compress(lines, taken)))
                grown += len(pieces[-1])
        if not any(map(all, verdicts)):
            unwanted += sum(not any(takers) for takers in zip(*verdicts, strict=True))
        yield grown
    left = []
    for pieces in kept:
        rest = body if pieces is None else b"\n".join(pieces)
        left.append(b"" if pieces is not None and (yield from is_blank_slowly(rest)) else rest)
    return left, unwanted
