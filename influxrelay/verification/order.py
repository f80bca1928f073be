"""What ``influxrelay repair`` is to do, and what it has done."""

from __future__ import annotations

from typing import Any

import attrs

from influxrelay.verification.differences import Difference
from influxrelay.verification.repair import Uncopied


@attrs.frozen(kw_only=True)
class Order:
    """What the command line asks for, beside what is selected.

    :ivar source: empty for all that can be copied from.
    :ivar lost: whether only the time is looked at in which the queue has dropped writes.
    """

    backend: str
    source: str = ""
    dry_run: bool = False
    overwrite: bool = False
    lost: bool = False


@attrs.define
class Answer:
    """What the command says.

    :ivar created: databases and retention policies, with a point between them.
    :ivar not_compared: what could not be looked at or created, and why.
    :ivar differences: that are left, or, of a dry run, found.
    :ivar surplus: how many points of the backend its sources lack.
    :ivar forgotten: whether the backend's losses are no longer counted.
    :ivar notes: lines for people.
    """

    listener: str
    backend: str
    sources: tuple[str, ...] = ()
    dry_run: bool = False
    created: list[str] = attrs.field(factory=list)
    copied: int = 0
    overwritten: int = 0
    differing: int = 0
    uncopied: list[Uncopied] = attrs.field(factory=list)
    not_compared: list[str] = attrs.field(factory=list)
    differences: list[Difference] = attrs.field(factory=list)
    surplus: int = 0
    forgotten: bool = False
    notes: list[str] = attrs.field(factory=list)

    @property
    def complete(self) -> bool:
        """Whether the backend has all that it lacked."""
        lacked = self.dry_run and (self.created or self.copied or self.overwritten)
        return not self.uncopied and not self.not_compared and not lacked

    def show(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "complete": self.complete,
            "listener": self.listener,
            "backend": self.backend,
            "from": list(self.sources),
            "dry_run": self.dry_run,
            "created": self.created,
            "copied": self.copied,
            "overwritten": self.overwritten,
            "differing": self.differing,
            "not_copied": [each.show() for each in self.uncopied],
            "not_compared": self.not_compared,
            "differences": [each.show() for each in self.differences],
            "losses_forgotten": self.forgotten,
        }
