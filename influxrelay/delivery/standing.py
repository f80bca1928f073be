"""Which backends have every acknowledged write, and which of the others lack least."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from influxrelay.core.text import count
from influxrelay.delivery.http_backend import HTTPBackend
from influxrelay.delivery.sender import Sender


@attrs.frozen
class Standing:
    """How a backend is, for whoever wants to read from it.

    What is in flight is no matter: a backend that answers in time is in sync.

    :ivar why_unavailable: why it would not answer, as far as is known; empty if it would.
    :ivar lacks: what it lacks, in words; empty if it lacks nothing.
    :ivar is_changing: whether it is about to execute a change of which a client was told; beside what it lacks.
    :ivar missing: how many writes that are, as far as is known.
    """

    why_unavailable: str
    lacks: str
    is_changing: bool
    missing: int

    @property
    def in_sync(self) -> bool:
        """Whether it has every acknowledged write, and answers."""
        return self.is_about_to_be and not self.is_changing

    @property
    def is_about_to_be(self) -> bool:
        """Whether it is in sync, or will be when it has executed a change."""
        return not self.why_unavailable and not self.lacks

    @property
    def why_not(self) -> str:
        """What keeps it from being in sync."""
        changing = "it is about to execute a change" if self.is_changing else ""
        return "; ".join(filter(None, (self.why_unavailable, self.lacks, changing))) or "in sync"


def standing(sender: Sender) -> Standing:
    """Look at a backend; what an operator has dropped on purpose is no matter."""
    lost = sum(each.writes for each in sender.backlog.losses() if each.reason != "operator")
    behind, stands_by = sender.is_behind, sender.stands_by
    waiting = sender.queues.outstanding()[0] if behind else 0
    lacks = []
    if lost:
        lacks.append(f"it will not get {count(lost, 'write')}")
    if behind and stands_by:
        lacks.append("behind: writes wait for it, which another relay delivers")
    elif behind:
        lacks.append(f"behind: {count(waiting, 'write')} in memory, and perhaps more on disk")
    return Standing(sender.why_unavailable(), "; ".join(lacks), sender.has_a_change, lost + waiting)


@attrs.frozen
class Outlook:
    """What would become of a read.

    :ivar in_sync: whether a backend would answer it that has every acknowledged write, and soon every change.
    """

    in_sync: bool
    message: str


def outlook(senders: Sequence[Sender], *, serves_old: bool) -> Outlook:
    """Look at the backends that answer reads.

    :param serves_old: whether a backend is asked that lacks something while none is in sync.
    """
    found = [(each.name, standing(each)) for each in senders]
    good = [name for name, how in found if how.is_about_to_be]
    if good:
        return Outlook(in_sync=True, message=f"in sync: {', '.join(good)}")
    if not serves_old:
        words = "no backend is in sync, and reads are refused"
    elif all(how.why_unavailable for _, how in found):
        words = "no backend answers"
    else:
        words = "no backend is in sync, and the one that lacks least answers reads"
    return Outlook(in_sync=False, message=f"{words}: {'; '.join(f'{name}: {how.why_not}' for name, how in found)}")


def transport(sender: Sender) -> HTTPBackend:
    """Return the way to a backend of an HTTP listener.

    :raises TypeError: it is another one.
    """
    backend = sender.backend
    if not isinstance(backend, HTTPBackend):
        raise TypeError(backend)
    return backend
