"""What is configured of a sender, and may change while it works."""

from __future__ import annotations

import attrs

from influxrelay.core.write import LINES, REMOTE_WRITE, STATEMENT, Write
from influxrelay.delivery.answer_rules import AnswerRule
from influxrelay.delivery.statements import scope_of
from influxrelay.lineprotocol.filters import Filter

EVERYTHING = frozenset((LINES, REMOTE_WRITE, STATEMENT))


@attrs.frozen
class SenderSettings:
    """How a sender works; sizes are in bytes of memory, with all that a write takes beside its lines.

    :ivar name: the backend's.
    :ivar listener: whose backend it is, for the log.
    :ivar max_batch: bytes of lines that a merged request may have; a single larger write travels alone.
    :ivar max_in_flight: requests under way per destination; more than one gives up the order.
    :ivar max_waiting: that writes may take on their way to the backend; one beyond it fails, or waits in the journal.
    :ivar buffer: the same for a backlog in memory, instead of ``max_waiting``.
    :ivar drop_oldest: whether the oldest write in that buffer makes room for a new one; else the new one fails.
    :ivar max_delay: seconds, the longest pause between two retries for which no client waits.
    :ivar create_databases: whether a database that a kept write misses is created.
    :ivar filter: what the backend takes; None for everything. It is applied by whoever submits writes, and to what is
        read from a journal when it is read.
    :ivar kinds: the kinds of writes that the backend takes; the same holds for them. A filter is for lines.
    :ivar statements: those that the backend knows, such as ``DROP MEASUREMENT``; None for all. The same holds for them.
    :ivar answers: what the backend's answers mean; the first rule that matches decides, before the defaults.
    """

    name: str
    listener: str = ""
    max_batch: int = 512 * 1024
    max_in_flight: int = 1
    max_waiting: int = 32 * 1024 * 1024
    buffer: int = 0
    drop_oldest: bool = False
    max_delay: float = 10.0
    create_databases: bool = False
    filter: Filter | None = None
    kinds: frozenset[str] = EVERYTHING
    statements: frozenset[str] | None = None
    answers: tuple[AnswerRule, ...] = ()

    @property
    def is_repairable(self) -> bool:
        """Whether ``influxrelay repair`` can copy to the backend: not to an InfluxDB 3.x, which takes lines alone."""
        return self.kinds != frozenset((LINES,))

    def knows(self, write: Write) -> bool:
        """Tell whether the backend knows a statement; of other writes it knows all."""
        is_known = self.statements is None or write.destination.kind != STATEMENT
        return is_known or scope_of(write.query).kind in (self.statements or ())
