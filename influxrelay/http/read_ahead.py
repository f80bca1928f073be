"""How far a listener reads ahead of its backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

ENOUGH = 4 * 1024 * 1024  # bytes that each backend has before it: several requests
LARGE = 32 * 1024  # bytes of a body behind which a connection may have to wait
PATIENCE = 0.1  # seconds for which it waits at most, whatever the backends do
_PAUSE = 0.002  # seconds between two looks at the backends


class Reader(Protocol):
    """A connection."""

    def adjust_reading(self) -> None:
        """Read, or do not, as is right now."""


class ReadAhead:
    """Lets connections that bring large bodies wait while every backend has enough to do.

    What their clients send meanwhile stays in the system's buffers, and is sent to the backends no later for that: what
    comes before it has to be sent first.

    :param load: returns how many bytes the backend has before it that has least; 0 if there is none that takes any.
    """

    def __init__(self, load: Callable[[], int], reactor: Any) -> None:
        self._load = load
        self._reactor = reactor
        self._held: dict[Reader, tuple[float, int]] = {}  # in the order of their times

    def holds(self, reader: Reader) -> bool:
        """Tell whether a connection has to wait."""
        return reader in self._held

    def hold(self, reader: Reader, size: int) -> bool:
        """Let a connection wait if every backend has enough to do; it is told when to go on.

        :param size: of the body that it has brought; another one like that is expected.
        """
        if not self._held:
            if self._load() < ENOUGH:
                return False
            self._reactor.callLater(_PAUSE, self._look)
        self._held[reader] = (self._reactor.seconds() + PATIENCE, size)
        return True

    def _look(self) -> None:
        """Let those go on for which there is room, and those whose time is up."""
        now, room = self._reactor.seconds(), ENOUGH - self._load()
        for reader, (due, size) in list(self._held.items()):
            if room <= 0 and now < due:
                break
            room -= size
            del self._held[reader]
            reader.adjust_reading()
        if self._held:
            self._reactor.callLater(_PAUSE, self._look)
