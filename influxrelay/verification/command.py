"""``influxrelay verify``: which servers are compared, up to when, and what is said of it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import attrs

from influxrelay.config.settings import Config, HTTPOutputConfig, ListenerConfig, UDPOutputConfig
from influxrelay.core.text import count, iso_nanoseconds, size
from influxrelay.operations.verifications import REPORT
from influxrelay.operations.views import Refused, Request
from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.comparison import Comparison, Selection
from influxrelay.verification.measurement import SMALL
from influxrelay.verification.progress import Memory, state_directory
from influxrelay.verification.server import Server
from influxrelay.verification.setting import Outcome
from influxrelay.verification.statements import EVERYTHING, Window
from influxrelay.verification.tombstones import deleted_by, read_missed

_NOT_COMPARED = {"v2": "InfluxDB 2.x", "v3": "InfluxDB 3.x"}
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
    :ivar state_directory: where it is remembered what was compared, for going on after an interruption; empty for
        where this user's programs do that.
    :ivar restart: whether to begin anew if there was one.
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
    state_directory: str = ""
    restart: bool = False

    @property
    def whole(self) -> bool:
        """Whether all that the backends contain is wanted."""
        is_part = self.database or self.policy or self.measurement or self.since is not None or self.until is not None
        return not is_part

    def password(self) -> str:
        """Return the password.

        :raises Refused: it cannot be read.
        """
        try:
            return Path(self.password_file).read_text(encoding="utf-8").rstrip("\r\n") if self.password_file else ""
        except (OSError, ValueError) as error:
            raise Refused(f"{self.password_file}: {getattr(error, 'strerror', None) or error}") from None


@attrs.frozen
class Answer:
    """What the command says.

    :ivar notes: lines for people: what was left out, and what was only sampled.
    """

    listener: str
    backends: tuple[str, ...]
    outcome: Outcome
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
    outputs, notes = find_outputs(listener)
    names = tuple(each.name for each in outputs)
    if len(outputs) < 2:
        raise Refused("; ".join([f"{listener.name} has fewer than two InfluxDB 1.x backends to compare", *notes]))
    relay = _Relay(ask)
    queued, more = queued_since(relay.queues, listener.name, names)
    bounds, note = bounds_of(wanted, queued)
    notes += [*more, *note]
    if bounds.length <= 0:
        raise Refused("; ".join(["there is no time left to compare", *notes]))
    password = wanted.password()
    servers = [attrs.evolve(make_server(each, wanted, password), tries_later=_TRIES) for each in outputs]
    selection = Selection(wanted.database, wanted.policy, wanted.measurement, bounds)
    memory = _memory(listener, outputs, wanted)
    if memory.note:
        say(f"{listener.name}: {memory.note}")
    try:
        outcome = Comparison(servers, selection, progress, memory=memory).run()
        memory.forget()
    finally:
        memory.close()
        for each in servers:
            each.close()
    missed = read_missed(ask, listener.name)
    notes += (deleted_by(name, each) for name in names for each in missed.get(name, []))
    notes += [*not_looked_at(outcome), *relay.tell(listener.name, wanted, outcome)]
    return Answer(listener.name, names, outcome, notes)


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

    def queues(self) -> dict[str, Any]:
        answer = self.ask(Request("queues"))
        self._runs = answer["relay"] == "running"
        return answer

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


def find_listener(config: Config, name: str, backend: str = "") -> ListenerConfig:
    """Return the listener of this name.

    :param name: empty if there is only one that has the backend, or backends to compare.
    :raises Refused: there is none, or more than one.
    """
    found = [each for each in config.listeners if name in ("", each.name) and each.outputs]
    if not name:
        having = [
            each
            for each in found
            if (backend in [output.name for output in each.outputs] if backend else len(find_outputs(each)[0]) > 1)
        ]
        found = having or found
    if len(found) == 1:
        return found[0]
    shards = [each.name for each in config.shards if name and each.name.startswith(f"{name}/")]
    if shards:
        raise Refused(f"{name} has shards; name one of them with --listener: {', '.join(shards)}")
    names = ", ".join(each.name for each in config.listeners if each.outputs)
    raise Refused(f"there is no listener {name}; there is: {names}" if name else f"name one with --listener: {names}")


def find_outputs(listener: ListenerConfig) -> tuple[list[HTTPOutputConfig], list[str]]:
    """Return the outputs that can be compared, and of the others why not."""
    found: list[HTTPOutputConfig] = []
    notes = []
    outputs: Sequence[HTTPOutputConfig | UDPOutputConfig] = listener.outputs
    for each in outputs:
        if isinstance(each, UDPOutputConfig):
            notes.append(f"{each.name} is written to over UDP, and cannot be compared")
        elif each.type == "prometheus" or each.api in _NOT_COMPARED:
            kind = "a Prometheus" if each.type == "prometheus" else _NOT_COMPARED[each.api]
            notes.append(f"{each.name} is {kind}, and cannot be compared")
        else:
            found.append(each)
            if each.filters:
                notes.append(f"{each.name} has filters: what they leave out is missing there on purpose")
    return found, notes


def queued_since(queues: Queues, listener: str, backends: Sequence[str]) -> tuple[int | None, list[str]]:
    """Return when the oldest write was accepted that a backend does not have yet, and what is to be said of it."""
    try:
        answer = queues()
    except Refused as error:
        return None, [f"what is still queued is not known: {error}"]
    notes, oldest = [], []
    for row in answer["queues"]:
        if row["listener"] != listener or row["backend"] not in backends or not row["writes"]:
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


def authorization(output: HTTPOutputConfig, wanted: Wanted, password: str) -> str:
    """Return the header for requests to an output that has no credentials; empty if it has, or none are given.

    :param password: of the user that is wanted.
    """
    names = {name.lower() for name, _ in output.headers}
    given = output.username is not None or output.token is not None or "authorization" in names
    if given or not wanted.user or not {"u", "p"}.isdisjoint(dict(parse_qsl(output.query))):
        return ""
    return _basic(wanted.user, password)


def make_server(output: HTTPOutputConfig, wanted: Wanted, password: str) -> Server:
    """Return a backend to be asked; ``password`` is the wanted user's."""
    headers = dict(output.headers)
    given = {name: value for name, value in parse_qsl(output.query) if name in ("u", "p")}
    if output.token is not None:
        headers["Authorization"] = f"Token {output.token}"
    elif output.username is not None:
        headers["Authorization"] = _basic(output.username, output.password)
    elif words := authorization(output, wanted, password):
        headers["Authorization"] = words
    tls = ClientTLS(
        verify=not output.skip_tls_verification,
        ca_file=output.ca_file,
        client_certificate=output.client_certificate,
    )
    return Server(output.name, output.query_url, tls, headers, given, share=wanted.share)


def _basic(user: str, password: str | None) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
