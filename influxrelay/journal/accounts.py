"""What was lost for each backend, and which dead letters there are to be kept, until the ledger has them."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from influxrelay.journal.ledger import Letter, Loss
from influxrelay.journal.records import Drop

MAX_LETTERS = 1000  # that wait in memory for the ledger, if the disk does not take them


class Accounts:
    """Counts losses in memory, together with what the ledger has of them.

    :ivar letters: dead letters that the ledger does not have yet.
    """

    def __init__(self, known: Iterable[Loss] = ()) -> None:
        self.letters: list[Letter] = []
        self._totals: dict[tuple[int, str], Loss] = {}
        self._new: dict[tuple[int, str], Loss] = {}
        self.note(known)

    @property
    def have_news(self) -> bool:
        """Whether there is something that the ledger does not have."""
        return bool(self.letters or self._new)

    def note(self, losses: Iterable[Loss]) -> None:
        """Add losses that the ledger has already."""
        for each in losses:
            _add(self._totals, each)

    def count(self, loss: Loss) -> None:
        """Add a loss, and have it written down."""
        _add(self._totals, loss)
        _add(self._new, loss)

    def count_damage(self, backends: Iterable[int], now: float) -> None:
        """Count that each of these has lost something, of which nobody knows what it was."""
        for each in backends:
            self.count(Loss(each, "damaged", 1, 0, now, now))

    def bury(self, letter: Letter) -> None:
        """Have a dead letter written down."""
        self.letters.append(letter)
        for each in self.letters[:-MAX_LETTERS]:
            self.count(Loss(each.backend, "full", 1, len(each.write.body), each.time, each.time))
        del self.letters[:-MAX_LETTERS]

    def take(self) -> tuple[tuple[Letter, ...], tuple[Loss, ...]]:
        """Return what is to be written down."""
        letters, losses = tuple(self.letters), tuple(self._new.values())
        self.letters, self._new = [], {}
        return letters, losses

    def put_back(self, letters: Iterable[Letter], losses: Iterable[Loss]) -> None:
        """Take back what could not be written down."""
        self.letters[:0] = letters
        for each in losses:
            _add(self._new, each)

    def all_again(self) -> None:
        """Have everything written down, in a new ledger."""
        self._new = dict(self._totals)

    def losses(self, backend: int, name: str) -> list[Drop]:
        """Return what was lost for a backend, under a name."""
        return [
            Drop(name, each.reason, each.writes, each.bytes, each.first, each.last)
            for each in self._totals.values()
            if each.backend == backend
        ]

    def forget(self, backend: int) -> None:
        """Count a backend's losses from zero."""
        self._totals = {key: each for key, each in self._totals.items() if each.backend != backend}
        self._new = {key: each for key, each in self._new.items() if each.backend != backend}


def _add(losses: dict[tuple[int, str], Loss], loss: Loss) -> None:
    key = loss.backend, loss.reason
    known = losses.get(key)
    losses[key] = (
        loss
        if known is None
        else attrs.evolve(
            known,
            writes=known.writes + loss.writes,
            bytes=known.bytes + loss.bytes,
            first=min(known.first, loss.first),
            last=max(known.last, loss.last),
        )
    )
