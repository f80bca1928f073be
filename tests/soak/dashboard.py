"""A dashboard that asks for what it knows was written, and what was noticed of failures."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlencode

import attrs

from testing.picture import SERVERS
from testing.servers import LOOPBACK, Influxd, send
from testing.sites import DATABASE, HTTPSender

DASHBOARD = "127.9.0.1"


@attrs.define
class Voters:
    """Since when each relay has been alive; None while it is not."""

    since: dict[str, float | None]

    def counts_from(self, relay: str, acknowledged: float) -> float | None:
        """Return from when on each answer has to have a point; None if nobody can know of it."""
        since = self.since[relay]
        return None if since is None else max(acknowledged, since)


@attrs.define
class Tally:
    """What was noticed in a scenario."""

    title: str
    answers: Counter[str] = attrs.field(factory=Counter)  # by who gave them, or "503", or "broken"
    old: list[str] = attrs.field(factory=list)
    unknowable: int = 0  # answers without a point of which nobody there could know
    behind: int = 0  # answers that say so
    stalest: float = 0.0
    failed: list[str] = attrs.field(factory=list)
    repeated: int = 0
    longest: float = 0.0
    written: int = 0
    datagrams: int = 0
    lost: int = 0
    problems: list[str] = attrs.field(factory=list)
    large: Counter[str] = attrs.field(factory=Counter)  # large answers: "complete", "broken", by status
    wrong: list[str] = attrs.field(factory=list)  # large answers that look complete and are not

    def row(self) -> tuple[str, ...]:
        """Return a row of the table."""
        answered = sum(self.answers[name] for name in SERVERS)
        return (
            self.title,
            str(self.written),
            str(len(self.failed)),
            str(self.repeated),
            f"{self.longest:.1f} s",
            str(answered),
            str(self.answers["503"]),
            str(self.answers["broken"]),
            str(self.behind),
            str(len(self.old)),
            str(self.unknowable),
            f"{self.stalest:.1f} s",
            str(self.datagrams),
            str(self.lost),
            str(self.large["complete"]),
            str(sum(self.large.values()) - self.large["complete"]),
            "no" if self.problems else "yes",
        )


HEAD = (
    "parts",
    "HTTP writes",
    "failed",
    "repeated",
    "longest",
    "answers",
    "503",
    "broken",
    "behind",
    "old",
    "unknown",
    "stalest",
    "datagrams",
    "lost",
    "large",
    "no answer",
    "equal",
)


def _numbers(body: bytes) -> frozenset[int]:
    found = json.loads(body)["results"][0].get("series", ())
    return frozenset(row[1] for series in found for row in series["values"])


@attrs.frozen
class Answer:
    """What came of a question.

    :ivar relay: who has passed it on; empty where queries do not go through relays.
    :ivar in_sync: whether it is said to have everything.
    :ivar there: the numbers of the points in it.
    """

    status: int
    relay: str = ""
    server: str = ""
    in_sync: bool = True
    there: frozenset[int] = frozenset()


class Dashboard(threading.Thread):
    """Asks through HAProxy for what one sender after the other has written, and compares it with what that one knows.

    Where relays answer, a question has to have what the relay that has passed it on has acknowledged, unless the answer
    says that its server is behind; and in any case what that server had when it was asked directly just before.

    :param grace: seconds after which a point has to be there.
    :param servers: those behind relays that answer, by name; none where HAProxy asks the servers.
    """

    def __init__(
        self, port: int, senders: list[HTTPSender], voters: Voters, grace: float, servers: Mapping[str, Influxd]
    ) -> None:
        super().__init__(name="dashboard", daemon=True)
        self.tally = Tally("")
        self.since = 0  # nanoseconds: older points are not asked for
        self.first: dict[str, int] = {}  # by sender: the first number that is asked for
        self.over = threading.Event()
        self.asking = threading.Lock()
        self.grace = grace
        self._port, self._senders, self._voters, self._servers = port, senders, voters, servers
        self._connection: http.client.HTTPConnection | None = None

    def begin(self, title: str) -> Tally:
        """Count for another scenario from now on, and ask for what is written from now on."""
        with self.asking:
            self.tally = Tally(title)
            self.since = time.time_ns()
            self.first = {sender.source.name: sender.sent + 2 for sender in self._senders}
            return self.tally

    def run(self) -> None:
        """Ask until told to end."""
        for sender in itertools.cycle(self._senders):
            if self.over.wait(0.1):
                break
            with self.asking:
                self._ask(sender)

    def _ask(self, sender: HTTPSender) -> None:
        name, tally = sender.source.name, self.tally
        had = {server: self._ask_directly(each, name) for server, each in self._servers.items()}
        asked = time.monotonic()
        known = {  # since when it has to be there, whichever server answers, by relay and number
            (relay, number): self._voters.counts_from(relay, when)
            for number, (when, relay) in list(sender.acknowledged.items())
            if number >= self.first[name] and when <= asked
        }
        try:
            answer = self._query(name)
        except (http.client.HTTPException, OSError):
            answer = Answer(0)
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        if answer.status != 200:
            tally.answers["503" if answer.status == 503 else "broken"] += 1
            return
        tally.answers[answer.server] += 1
        tally.behind += not answer.in_sync
        gone = had.get(answer.server, frozenset()) - answer.there
        if gone:
            tally.old.append(f"{answer.server} lacked {name}'s {sorted(gone)[:5]}, which it had")
        missing = {key: since for key, since in known.items() if key[1] not in answer.there}
        counted = {  # since when its relay has known of it
            number: since
            for (relay, number), since in missing.items()
            if since is not None and (not self._servers or relay == answer.relay)
        }
        tally.unknowable += len(counted) < len(missing)
        if counted and answer.in_sync:
            age = asked - min(counted.values())
            tally.stalest = max(tally.stalest, age)
            if age > self.grace:
                late = [number for number, since in counted.items() if asked - since > self.grace]
                tally.old.append(f"{answer.server} lacked {name}'s {late[:5]}, {age:.1f} s old")

    def _parameters(self, name: str) -> str:
        q = f"SELECT n FROM http WHERE sender = '{name}' AND time >= {self.since}"
        return urlencode({"db": DATABASE, "q": q, "epoch": "ns"})

    def _ask_directly(self, server: Influxd, name: str) -> frozenset[int]:
        try:
            status, body = send("GET", f"{server.url}/query?{self._parameters(name)}", timeout=0.5)
        except OSError:
            return frozenset()
        return _numbers(body) if status == 200 else frozenset()

    def _query(self, name: str) -> Answer:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                LOOPBACK, self._port, timeout=15, source_address=(DASHBOARD, 0)
            )
        self._connection.request("GET", f"/query?{self._parameters(name)}")
        answer = self._connection.getresponse()
        body = answer.read()
        server = answer.getheader("X-Influxrelay-Backend", "")
        who = answer.getheader("X-Served-By", "")
        in_sync = answer.getheader("X-Influxrelay-In-Sync", "true") == "true"
        there = _numbers(body) if answer.status == 200 else frozenset()
        return Answer(answer.status, who if server else "", server or who, in_sync, there)

    def end(self) -> None:
        """Let it end."""
        self.over.set()
        self.join()


def table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a simple table in reStructuredText."""
    rows = [HEAD, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    yield from (rule, lines[0], rule, *lines[1:], rule)
