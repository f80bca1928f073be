"""How long writes are gathered for the next message to a shared log."""

from __future__ import annotations

LONGEST = 0.05  # seconds
A_WHILE = 0.005  # seconds to wait for clients that have just been answered, however fast the log is
SHARE = 0.5  # of the time that the last message took: how long writes are gathered in any case
FULL_SHARE = 2.0  # the same while clients write again as soon as they are answered
MISSES = 3  # messages in a row without all of these clients, after which the wait is SHARE again
TRY = 16  # every so many messages, wait for them again to find out whether they write


class Gathering:
    """Decides when the next message is published.

    Most clients write again as soon as they are answered. A message that waits for them has the writes of all; so there
    are fewer messages, each of which costs every server a sync to disk. Where clients come and go, it waits less.

    :ivar expected: how many writes there should soon be.
    """

    __slots__ = ("_is_full", "_misses", "_until", "expected")

    def __init__(self) -> None:
        self.expected = 0
        self._until = 0.0
        self._misses = 0
        self._is_full = False

    def published(self, waiting: int, taken: int) -> None:
        """Note how many writes there are when a message is published, and how many of them are in there."""
        self._misses = 0 if waiting >= self.expected else self._misses + 1
        self._is_full = taken < waiting

    def stored(self, now: float, took: float, writes: int, waiting: int) -> None:
        """Note that a message is stored.

        :param took: in seconds.
        :param writes: how many are in there.
        :param waiting: how many there are for the next one.
        """
        if writes > 1 and not self._is_full:
            self.expected = writes + waiting
            is_worth = self._misses < MISSES or self._misses % TRY == 0
            self._until = now + min(LONGEST, max(took * FULL_SHARE, A_WHILE) if is_worth else took * SHARE)

    def pause(self, now: float, waiting: int) -> float:
        """Return how long to wait for more writes."""
        return max(0.0, self._until - now) if waiting < self.expected else 0.0
