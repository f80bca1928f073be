"""How the relay is, as its page and ``influxrelay top`` show it: ``/status``, the troubles, and the last hour."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from influxrelay.core.text import age, count, iso, size
from influxrelay.operations.health import Health
from influxrelay.operations.history import History
from influxrelay.operations.recent_log import LogLine

COMMAND = "top"  # how the admin socket is asked for it
RATE_SPAN = 60.0  # seconds over which rates are means
STATES = {
    "up": "up",
    "trouble": "takes no writes",
    "paused": "paused",
    "behind": "catching up",
    "removed": "no longer configured",
    "stopped": "stopped",
}
BAD_STATES = ("trouble", "removed")


@attrs.frozen
class Trouble:
    """Something to look at.

    :ivar listener: empty if it is about all of the relay.
    :ivar backend: empty if it is about all of the listener.
    :ivar what: is wrong.
    :ivar since: when that began, in seconds since the epoch; None if that is not known.
    :ivar advice: what to do about it; a command in it goes to the end.
    """

    listener: str
    backend: str
    what: str
    since: float | None = None
    advice: tuple[str, ...] = ()

    def show(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**attrs.asdict(self), "since": None if self.since is None else iso(self.since)}


@attrs.frozen
class Facts:
    """What is known.

    :ivar status: what ``/status`` says.
    :ivar letters: the oldest dead letters, as ``influxrelay dead-letters list`` has them.
    :ivar lines: of the log, the newest last.
    :ivar now: seconds since the epoch.
    """

    status: dict[str, Any]
    health: Health
    history: History
    letters: Sequence[dict[str, Any]]
    lines: Sequence[LogLine]
    now: float

    def troubles(self) -> Iterator[Trouble]:
        """Yield what is wrong, the worst first."""
        if not self.health.passed:
            yield Trouble("", "", f"Writes are refused: {self.health.message}")
        rows = [row for row in self.status["queues"] if row["advice"]]
        rows.sort(key=lambda row: (row["state"] not in BAD_STATES, not row["drops"], row["listener"], row["backend"]))
        for row in rows:
            track = self.history.track(row["listener"], row["backend"])
            known = track is not None and track.state == row["state"] != "up"
            since = track.since if track is not None and known else None
            advice = [*row["advice"][:1], *self._on_queue(row), *row["advice"][1:]]
            yield Trouble(row["listener"], row["backend"], _what(row), since, tuple(advice))
        for listener in self.status["listeners"]:
            for each in listener["verifications"]:
                if not each["equal"]:
                    yield Trouble(
                        listener["name"],
                        "",
                        f"its backends differed in {count(each['differences'], 'place')} at {each['time']}",
                        advice=(
                            f"see where with: influxrelay verify --listener {shlex.quote(listener['name'])}",
                            "copy what one lacks, then verify again, with: influxrelay repair BACKEND",
                        ),
                    )

    def _on_queue(self, row: dict[str, Any]) -> Iterator[str]:
        """Yield what is to be said of a queue that is filling, or full."""
        track = self.history.track(row["listener"], row["backend"])
        used, limit = row["queue_used"], row["queue_limit"]
        if track is None or row["state"] not in ("trouble", "paused", "behind"):
            return
        recent, rates = track.rates(RATE_SPAN), track.rates(max(RATE_SPAN, self.now - track.since))
        if recent is not None and recent.lost:
            yield f"it is losing {recent.lost:,.1f} writes a second: its queue has no room"
        elif used and limit:
            full = f"its queue is {100 * used // limit}% full ({size(used)} of {size(limit)})"
            if rates is None or rates.filling <= 0:
                yield full
            else:
                yield f"{full}; at this rate full in {age(max(0, limit - used) / rates.filling)}"

    def show(self, listener: str = "") -> dict[str, Any]:
        """Return it for JSON.

        :param listener: only this one; empty for all.
        """
        return {
            "host": socket.gethostname(),
            "version": self.status["version"],
            "started": self.status["started"],
            "uptime": self.status["uptime"],
            "time": iso(self.now),
            "healthy": self.health.passed,
            "message": self.health.message,
            "troubles": [each.show() for each in self.troubles() if not listener or each.listener in ("", listener)],
            "listeners": [
                {name: each[name] for name in ("name", "bind_addr", "ready", "problem")}
                for each in self.status["listeners"]
                if listener in ("", each["name"])
            ],
            "queues": [
                {**row, **self._past(row)} for row in self.status["queues"] if listener in ("", row["listener"])
            ],
            "dead_letters": [each for each in self.letters if listener in ("", each["listener"])],
            "log": [each.show() for each in self.lines],
        }

    def _past(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return since when a backend is in its state, and writes per second."""
        track = self.history.track(row["listener"], row["backend"])
        rates = None if track is None else track.rates(RATE_SPAN)
        return {
            "since": None if track is None or track.state != row["state"] else iso(track.since),
            "accepted_rate": None if rates is None else round(rates.accepted, 3),
            "sent_rate": None if rates is None else round(rates.sent, 3),
            "time_to_go": None if rates is None else rates.time_to_go(row["writes"] or 0),
        }


def _what(row: dict[str, Any]) -> str:
    """Say what is wrong with a backend, in some words."""
    if row["state"] != "up":
        return STATES[row["state"]]
    if row["journal_trouble"]:
        return "up, but the journal does not work"
    if row["drops"]:
        return "up, but it has lost writes"
    return "up, but it has refused writes" if row["dead_letters"] else "up, but see below"
