"""What ``influxrelay verify`` and ``repair`` have told the relay, which keeps it across restarts."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import Logger

from influxrelay.config.settings import Config
from influxrelay.core.text import iso
from influxrelay.journal.worker import in_thread
from influxrelay.operations.views import Refused, Request

FILE = "verifications.json"

ALL, PART = "all", "part"
"""Scopes: everything that a listener's backends contain, or what some options have selected."""


@attrs.frozen(kw_only=True)
class Verification:
    """A verification that has come to its end.

    :ivar scope: :data:`ALL` or :data:`PART`.
    :ivar time: of the end, in seconds since the epoch.
    :ivar windows: that were compared by aggregates, and ``points``: one by one.
    """

    scope: str
    time: float
    differences: int
    windows: int
    points: int

    def show(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**attrs.asdict(self), "time": iso(self.time), "equal": not self.differences}


@attrs.define
class _Told:
    """What is known of a listener: its last verification of each scope, and how many points each backend was given."""

    verifications: dict[str, Verification] = attrs.field(factory=dict)
    repaired: dict[str, int] = attrs.field(factory=dict)


def place_of(config: Config) -> Path | None:
    """Return the file in which it is kept: beside the first journal that is in a directory, else where systemd says.

    None if there is neither.
    """
    local = [
        each.journal.directory for each in config.listeners if each.journal is not None and not each.journal.shared
    ]
    directory = local[0] if local else os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(directory) / FILE if directory else None


class Verifications:
    """The last verification of each listener, and the points that were repaired.

    :param place: returns the file; None to keep it in memory only.
    """

    _log = Logger()

    def __init__(self, place: Callable[[], Path | None], reactor: Any, clock: Callable[[], float]) -> None:
        self._place = place
        self._reactor = reactor
        self._clock = clock
        self._told: dict[str, _Told] = {}
        self._is_saving = False
        self._has_news = False

    def load(self) -> None:
        """Read what was told to the process before this one; a file that cannot be read is none."""
        path = self._place()
        if path is None:
            return
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
            self._told = {
                name: _Told(
                    {each["scope"]: Verification(**each) for each in told["verifications"]}, dict(told["repaired"])
                )
                for name, told in json.loads(path.read_bytes()).items()
            }

    # -- what is told

    def note(self, request: Request, answer: Mapping[str, Any]) -> None:
        """Learn what became of a command."""
        if request.command == "repair write" and answer["outcome"] == "taken":
            points = int(request.report.get("points", 0))
            repaired = self._of(request.listener).repaired
            repaired[request.backend] = repaired.get(request.backend, 0) + points
            self._save()

    def take(self, request: Request) -> dict[str, Any]:
        """Take the report of a verification, and return nothing.

        :raises Refused: it is none.
        """
        names = ("differences", "windows", "points")
        if not request.report.keys() >= {"whole", *names}:
            raise Refused("the report lacks a field")
        found = Verification(
            scope=ALL if request.report["whole"] else PART,
            time=self._clock(),
            **{name: request.report[name] for name in names},
        )
        told = self._of(request.listener).verifications
        if found.scope == ALL:
            told.clear()
        told[found.scope] = found
        self._save()
        return {}

    def _of(self, listener: str) -> _Told:
        return self._told.setdefault(listener, _Told())

    # -- what is known

    def last(self, listener: str) -> list[Verification]:
        """Return the last verification of all that a listener's backends contain, and a later one of a part of it."""
        return list(self._told.get(listener, _Told()).verifications.values())

    def repaired(self, listener: str) -> dict[str, int]:
        """Return how many points were copied to each backend."""
        return dict(self._told.get(listener, _Told()).repaired)

    def show(self, listener: str) -> dict[str, Any]:
        """Return what is known of a listener for JSON."""
        return {
            "verifications": [each.show() for each in self.last(listener)],
            "repaired_points": self.repaired(listener),
        }

    # -- the file

    def _save(self) -> None:
        """Write the file in a thread, one time after the other: a disk may hang."""
        path = self._place()
        self._has_news = True
        if path is None or self._is_saving:
            return
        self._has_news, self._is_saving = False, True
        shown = json.dumps({name: _shown(told) for name, told in self._told.items()})
        saved = in_thread(self._reactor, "verifications", lambda: _write(path, shown))
        saved.addErrback(
            lambda failure: self._log.warn("{path}: {reason}", path=str(path), reason=str(failure.value))
        ).addBoth(self._saved)

    def _saved(self, _: object) -> None:
        self._is_saving = False
        if self._has_news:
            self._save()


def _shown(told: _Told) -> dict[str, Any]:
    return {"verifications": [attrs.asdict(each) for each in told.verifications.values()], "repaired": told.repaired}


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
