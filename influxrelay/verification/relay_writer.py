"""Writing to a backend by way of the running relay."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from influxrelay.operations import outcomes
from influxrelay.operations.views import Refused, Request
from influxrelay.verification.command import Ask
from influxrelay.verification.connection import paced, waiting
from influxrelay.verification.repair import Outdated
from influxrelay.verification.statements import Measurement, Place
from influxrelay.verification.tombstones import Missed, read_missed

TRIES = 120  # of a statement or a write, a second apart: a server or the relay may be restarting
_PATIENTLY = 3  # tries after which it is told


@attrs.frozen
class Relay:
    """The relay.

    :ivar ask: asks it while it runs, and ``ask_any`` also a stopped relay's journals.
    :ivar tell: is told when it, or a server, does not do what it is asked for a while.
    """

    ask_any: Ask
    ask: Ask
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    tell: Callable[[str], None] = lambda words: None  # noqa: ARG005

    def queues(self) -> dict[str, Any]:
        """Return what ``influxrelay queues`` says."""
        return self.ask_any(Request("queues"))

    def ask_patiently(self, request: Request) -> dict[str, Any]:
        """Ask again for a while if it refuses: it may be restarting."""
        message = ""
        for tried in self.tries():
            try:
                return self.ask(request)
            except Refused as error:
                message = str(error)
                self.note(message, tried)
        raise Refused(f"after {TRIES} tries: {message}")

    def tries(self) -> Iterator[int]:
        """Yield the number of each try, a second apart."""
        yield 1
        for tried in range(2, TRIES + 1):
            self.sleep(1)
            yield tried

    def note(self, problem: str, tried: int) -> None:
        """Tell about a problem once that does not go away soon."""
        if tried == _PATIENTLY:
            self.tell(waiting(problem, TRIES))


@attrs.frozen
class RelayWriter:
    """Writes what is from one backend to another, and waits for a while if the relay or the backend cannot take it.

    :ivar written_as: see :meth:`Server.written_as`.
    :ivar share: of the time that the backend may be kept busy.
    """

    relay: Relay
    listener: str
    backend: str
    source: str
    authorization: str = attrs.field(repr=False)
    written_as: Callable[[Place], Place] = lambda place: place
    share: float = 1.0

    def mark(self) -> str:
        """Return what goes with lines that are read from now on."""
        request = Request("repair mark", self.listener, self.backend, write={"source": self.source})
        return str(self.relay.ask_patiently(request)["mark"])

    def missed(self) -> Sequence[Missed]:
        """Return the changes that remove something and that the source has missed until now."""
        return read_missed(self.relay.ask_patiently, self.listener).get(self.source, [])

    def write(self, measurement: Measurement, lines: Sequence[str], mark: str, *, last: bool) -> str:
        """Write lines; return why the backend has refused some of them, empty if it has taken all."""
        database, policy = self.written_as((measurement.database, measurement.policy))
        fields = {
            "database": database,
            "retention_policy": policy,
            "lines": "\n".join(lines),
            "await_source": "yes" if last else "",
            "mark": mark,
        }
        return self._write(fields, len(lines))

    def write_samples(self, body: bytes, number: int) -> str:
        """Write the body of a remote write with so many samples; return as :meth:`write` does."""
        return self._write({"samples": b64encode(body).decode()}, number)

    def _write(self, fields: dict[str, str], points: int) -> str:
        fields |= {"source": self.source, "authorization": self.authorization}
        request = Request("repair write", self.listener, self.backend, write=fields, report={"points": points})
        message = ""
        for tried in self.relay.tries():
            try:
                found = paced(lambda: self.relay.ask(request), self.share, self.relay.sleep, self.relay.clock)
            except Refused as error:  # it may be restarting
                message = str(error)
                self.relay.note(message, tried)
                continue
            outcome, message = found["outcome"], f"{self.backend}: {found['message']}"
            if outcome in (outcomes.PAUSED, outcomes.DENIED):
                raise Refused(message)
            if outcome == outcomes.OUTDATED:
                raise Outdated
            if outcome != outcomes.NOT_NOW:
                return "" if outcome == outcomes.TAKEN else str(found["message"])
            self.relay.note(message, tried)
        raise Refused(f"after {TRIES} tries: {message}")
