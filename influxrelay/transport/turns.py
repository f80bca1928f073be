"""How much of what comes in large pieces is taken in one turn of the event loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

SHARE = 0.0005  # seconds for large pieces in each turn
_MOST_BESIDE = SHARE * 0.8  # seconds of it that other work may take
_READING = 0.4e-9  # seconds that a byte has taken before it gets here, roughly


class Turns:
    """Lets large pieces wait for the next turn of a loop when those before them have taken long.

    Small ones do not wait: so a client that sends little is served beside any number of those that send much.

    :param clock: returns seconds of CPU or wall time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.perf_counter) -> None:
        self._loop = loop
        self._clock = clock
        self._spent = self._spent_beside = 0.0
        self._is_noted = False  # whether the next turn will be noticed
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def is_over(self) -> bool:
        """Whether a large piece has to wait."""
        return self._spent >= SHARE

    def spend(self, deliver: Callable[[bytes], None], data: bytes) -> None:
        """Deliver a large piece in this turn.

        :param deliver: must not raise anything.
        """
        start = self._clock()
        deliver(data)
        self._spent += self._clock() - start + len(data) * _READING
        self._note_next()

    def spend_beside(self, seconds: float) -> None:
        """Leave so much less of the next turn to large pieces: other work for clients has taken it."""
        self._spent_beside += seconds

    def wait(self, call: Callable[[], None]) -> None:
        """Call this in one of the next turns, when it is not over; it has to :meth:`spend` something."""
        self._waiting.append(call)
        self._note_next()

    def _note_next(self) -> None:
        if not self._is_noted:
            self._is_noted = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._spent, self._spent_beside, self._is_noted = min(self._spent_beside, _MOST_BESIDE), 0.0, False
        while self._waiting and not self.is_over:
            self._waiting.popleft()()
        if self._waiting:
            self._note_next()


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """Return the turns of a loop."""
    turns = _of_loops.get(loop)
    if turns is None:
        turns = _of_loops[loop] = Turns(loop)
    return turns
