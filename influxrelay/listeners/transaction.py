"""What a reload does, all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger


class Transaction:
    """What makes a configuration hold in one reactor turn, and what takes back what had to be done before that.

    :ivar told: what changes, for people.
    """

    _log = Logger()

    def __init__(self) -> None:
        self.told: list[str] = []
        self._later: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._back: list[Callable[[], Any]] = []

    def tell(self, line: str) -> None:
        """Say that something changes."""
        self.told.append(line)

    def later(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Do this when nothing can fail any more."""
        self._later.append((call, arguments))

    def back(self, call: Callable[[], Any]) -> None:
        """Do this if it comes to nothing."""
        self._back.append(call)

    def take(self) -> None:
        """Let the configuration hold; a mistake in one step keeps no other from being taken."""
        for call, arguments in self._later:
            try:
                call(*arguments)
            except Exception:  # noqa: BLE001 (half of a configuration would be worse)
                self._log.failure("unexpected error in a step of a reload")

    async def take_back(self) -> None:
        """Undo what was done, one after the other; a mistake in one step keeps no other from being undone."""
        for call in reversed(self._back):
            try:
                await maybeDeferred(call)
            except Exception:  # noqa: BLE001 (half of it would be worse)
                self._log.failure("unexpected error in undoing a step of a reload")
