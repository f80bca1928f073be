"""What a backend's filter leaves of writes that are read from a journal."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from influxrelay.core.cooperation import make_cooperator
from influxrelay.core.write import Write
from influxrelay.delivery.parts import divide_write_slowly
from influxrelay.journal.records import Record
from influxrelay.lineprotocol.filters import Filter

Parts = dict[int, Write | None]
"""What is left of writes, by number; None for nothing."""

Page = tuple[list[Record], int]
"""Writes, and up to which number they are all."""


class PageFilter:
    """Divides writes bit by bit, for expressions may take long.

    :param is_over: tells whether nobody wants to know any more.
    :ivar wanted: the filter; None for one that takes everything.
    """

    def __init__(self, reactor: IReactorTime, is_over: Callable[[], bool]) -> None:
        self.wanted: Filter | None = None
        self._cooperator = make_cooperator(reactor)
        self._is_over = is_over

    def apply(self, page: Page, known: Container[int], parts: Parts) -> Deferred[Page]:
        """Find out what is left of a page's writes; fires with the page.

        :param known: the numbers of writes of which that is known.
        :param parts: is filled.
        """
        return self._cooperator.coiterate(self._apply_slowly(page[0], known, parts)).addCallback(lambda _: page)

    def _apply_slowly(self, records: list[Record], known: Container[int], parts: Parts) -> Generator[int, None, None]:
        wanted = self.wanted
        for record in records:
            if self._is_over():
                return
            if wanted is not None and record.seq not in known:
                division = yield from divide_write_slowly(record.write, [wanted])
                parts[record.seq] = division.parts[wanted]
