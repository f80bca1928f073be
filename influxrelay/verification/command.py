"""``influxrelay verify``: which servers are compared, up to when, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from influxrelay.config.settings import Config, HTTPOutputConfig, ListenerConfig
from influxrelay.core.text import count, iso_nanoseconds, size
from influxrelay.operations.views import REPORT, Refused, Request
from influxrelay.verification.backends import (
    Credentials,
    find_listener,
    find_outputs,
    make_prometheus,
    make_server,
)
from influxrelay.verification.comparison import Comparison, NothingToCompare, Selection
from influxrelay.verification.measurement import SMALL
from influxrelay.verification.progress import Memory, state_directory
from influxrelay.verification.samples import SampleComparison
from influxrelay.verification.setting import Outcome
from influxrelay.verification.statements import EVERYTHING, Window
from influxrelay.verification.tombstones import deleted_by, read_missed

_TRIES = 60  # of a statement, a second apart: a server may be restarting

Ask = Callable[[Request], dict[str, Any]]
"""Asks the relay, or a stopped relay's journals; raises :class:`Refused`."""

Queues = Callable[[], dict[str, Any]]
"""Returns what ``influxrelay queues`` says; raises :class:`Refused`."""


@attrs.frozen(kw_only=True)
class Wanted:
    """What the command line asks for.

    :ivar listener: empty if there is only one that has backends to compare.
    :ivar until: nanoseconds since 1970, exclusive; None for as far as nothing is queued any more.
    :ivar user: for backends whose output has no credentials; empty for none.
    :ivar password_file: the path of a file with the user's password.
    :ivar token_file: the path of a file with a token to read from InfluxDB 2.x, instead of those of the outputs.
    :ivar state_directory: where it is remembered what was compared, for going on after an interruption; empty for
        where this user's programs do that.
    :ivar restart: whether to start over if there was one.
    """

    listener: str = ""
    database: str = ""
    policy: str = ""
    measurement: str = ""
    since: int | None = None
    until: int | None = None
    share: float = 1.0
    user: str = ""
    password_file: str = ""
    token_file: str = ""
    state_directory: str = ""
    restart: bool = False

    @property
    def whole(self) -> bool:
        """Whether all that the backends contain is wanted."""
        is_part = self.database or self.policy or self.measurement or self.since is not None or self.until is not None
        return not is_part

    def credentials(self) -> Credentials:
        """Return what is given beside the configuration.

        :raises Refused: a file cannot be read.
        """
        return Credentials(self.user, _read(self.password_file), _read(self.token_file))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n") if path else ""
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: {getattr(error, 'strerror', None) or error}") from None


@attrs.frozen
class Answer:
    """What the command says.

    :ivar not_compared: what was left out, and why.
    :ivar notes: other lines for people, such as what was only sampled.
    """

    listener: str
    backends: tuple[str, ...]
    outcome: Outcome
    not_compared: list[str]
    notes: list[str]

    @property
    def equal(self) -> bool:
        """Whether no difference was found."""
        return not self.outcome.differences

    def show(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "equal": self.equal,
            "compared": {"windows": self.outcome.windows, "points": self.outcome.points},
            "differences": [each.show() for each in self.outcome.differences],
            "not_compared": self.not_compared,
        }


def verify(
    config: Config,
    wanted: Wanted,
    ask: Ask,
    progress: Callable[[float, int, Outcome], None],
    say: Callable[[str], None] = lambda words: None,  # noqa: ARG005
) -> Answer:
    """Compare the backends of a listener, and tell the relay what was found.

    :param say: is told at once what a person should know before the end.

    :raises InfluxRelayError: it cannot be told whether they are equal.
    """
    listener = find_listener(config, wanted.listener)
    found = find_outputs(listener)
    if wanted.database or wanted.policy:
        found.leave_out_prometheus()
    outputs = [*found.pair(found.influxdb, "InfluxDB"), *found.pair(found.prometheus, "Prometheus")]
    names = tuple(each.name for each in outputs)
    if not outputs:
        problem = f"{listener.name} has no two backends to compare"
        raise Refused("; ".join([problem, *found.not_compared]))
    relay = _Relay(ask)
    queued, notes = queued_since(relay.queues, listener.name, names)
    bounds, note = bounds_of(wanted, queued)
    notes = [*found.notes, *notes, *note]
    if bounds.length <= 0:
        raise Refused("; ".join(["there is no time left to compare", *notes]))
    selection = Selection(wanted.database, wanted.policy, wanted.measurement, bounds)
    memory = _memory(listener, outputs, wanted)
    if memory.note:
        say(f"{listener.name}: {memory.note}")
    try:
        outcome = _compare(outputs, wanted, selection, progress, memory, say=say)
        memory.forget()
    finally:
        memory.close()
    notes += relay.missed(listener.name, names)
    notes += [*not_looked_at(outcome), *relay.tell(listener.name, wanted, outcome)]
    return Answer(listener.name, names, outcome, [*found.not_compared, *outcome.not_compared], notes)


def _compare(
    outputs: Sequence[HTTPOutputConfig],
    wanted: Wanted,
    selection: Selection,
    progress: Callable[[float, int, Outcome], None],
    memory: Memory,
    *,
    say: Callable[[str], None],
) -> Outcome:
    """Compare those that know InfluxQL with each other, and those that know PromQL.

    :raises NothingToCompare: none of them has what is selected.
    """
    credentials = wanted.credentials()
    settings = {"share": wanted.share, "tries_later": _TRIES, "tell": say}
    influxdb = [make_server(each, credentials, **settings) for each in outputs if each.type == "influxdb"]
    prometheus = [make_prometheus(each, credentials, **settings) for each in outputs if each.type == "prometheus"]
    outcome = Outcome()
    problems = []
    try:
        for comparison in (
            Comparison(influxdb, selection, progress, memory=memory, outcome=outcome),
            SampleComparison(prometheus, selection, outcome, progress),
        ):
            try:
                if comparison.servers:
                    comparison.run()
            except NothingToCompare as problem:
                problems.append(str(problem))
    finally:
        for each in (*influxdb, *prometheus):
            each.close()
    if len(problems) == bool(influxdb) + bool(prometheus):
        raise NothingToCompare("; ".join(problems))
    outcome.not_compared += problems
    return outcome


def _memory(listener: ListenerConfig, outputs: Sequence[HTTPOutputConfig], wanted: Wanted) -> Memory:
    """Return what is known of an interrupted run of the same comparison."""
    servers = [(each.name, each.query_url) for each in outputs]
    key = (listener.name, servers, wanted.database, wanted.policy, wanted.measurement, wanted.since, wanted.until)
    directory = Path(wanted.state_directory) if wanted.state_directory else state_directory()
    return Memory.open(directory, key, restart=wanted.restart)


@attrs.define
class _Relay:
    """The relay, if it runs."""

    ask: Ask
    _runs: bool = False
    _has_answered: bool = False

    def queues(self) -> dict[str, Any]:
        answer = self.ask(Request("queues"))
        self._runs = answer["relay"] == "running"
        self._has_answered = True
        return answer

    def missed(self, listener: str, backends: Sequence[str]) -> Iterator[str]:
        """Yield which DELETE or DROP a backend has missed; if there is a relay that does not tell, why."""
        try:
            found = read_missed(self.ask, listener)
        except Refused as error:
            if self._has_answered:  # else it was said of the queues
                yield f"whether a backend has missed a DELETE or DROP is not known: {error}"
            return
        for name in backends:
            yield from (deleted_by(name, each) for each in found.get(name, []))

    def tell(self, listener: str, wanted: Wanted, outcome: Outcome) -> Iterator[str]:
        """Have the relay show what was found; yield why it does not, if it runs."""
        report = {
            "whole": wanted.whole,
            "differences": len(outcome.differences),
            "windows": outcome.windows,
            "points": outcome.points,
        }
        if self._runs:
            try:
                self.ask(Request(REPORT, listener, report=report))
            except Refused as error:
                yield f"the relay's metrics do not show this: {error}"


def bounds_of(wanted: Wanted, queued: int | None) -> tuple[Window, list[str]]:
    """Return the time to compare, and what is to be said of it.

    :param queued: since when something is queued.
    """
    bounds = Window(
        EVERYTHING.since if wanted.since is None else max(wanted.since, EVERYTHING.since),
        EVERYTHING.until if wanted.until is None else min(wanted.until, EVERYTHING.until),
    )
    if queued is None or wanted.until is not None:
        return bounds, []
    note = f"points from {iso_nanoseconds(queued)} on are left out; --until sets another end"
    return bounds._replace(until=min(bounds.until, queued)), [note]


def queued_since(queues: Queues, listener: str, backends: Sequence[str]) -> tuple[int | None, list[str]]:
    """Return when the oldest write was accepted that a backend does not have yet, and what is to be said of it."""
    try:
        answer = queues()
    except Refused as error:
        return None, [f"what is still queued is not known: {error}"]
    notes, oldest = [], []
    for row in answer["queues"]:
        if row["listener"] != listener or row["backend"] not in backends:
            continue
        if row["journal_trouble"]:
            notes.append(f"what is still queued for {row['backend']} is not known: {row['journal_trouble']}")
        if not row["writes"]:
            continue
        what = f"{count(row['writes'], 'write')} ({size(row['bytes'])})"
        if answer["relay"] == "stopped":
            notes.append(f"the relay does not run; its journal holds, not delivered to {row['backend']}: {what}")
        else:
            notes.append(f"still queued for {row['backend']}: {what}")
        if row["oldest"] is not None:
            oldest.append(int(datetime.fromisoformat(row["oldest"]).timestamp()) * 10**9)
    return min(oldest, default=None), notes


def not_looked_at(outcome: Outcome) -> Iterator[str]:
    """Yield what was only sampled."""
    if outcome.large:
        windows = count(outcome.large, "window")
        yield (
            f"{windows} of more than {SMALL} points had equal aggregates; of their {outcome.large_points} points"
            f" {outcome.sampled} were read, chosen by chance. Aggregates do not show values that have changed places,"
            " nor all strings and booleans"
        )
