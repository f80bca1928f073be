"""Kill, or freeze, each part of the picture while two sites write and a dashboard asks; tell what anybody noticed.

``python -m tests.soak.failures [--seed N] [--pairs N] [--signal KILL|STOP] [--through-relays]``. Two influxd, two
relays with journals, HAProxy and nginx run with the files of ``etc``. The sites write 200 lines a second, over HTTP and
UDP, and queries are asked through HAProxy all the time. In each scenario one part is killed (``kill -9``, or SIGSTOP)
and started again (or SIGCONT), and a second one: while the first is down, or soon after it is back. Two relays are
never down at the same time, nor is the second one killed before HAProxy has seen the first come back: that is an
outage, not a failure. At last each server lags, up and well, because the relays hold back its writes. What is checked:

- No HTTP write has failed for a client that repeats it once when its connection breaks.
- No query is answered by a server that lacks an acknowledged point: one acknowledged :data:`GRACE` seconds before the
  query by a relay that has been alive since. What a dead relay still holds nobody can know; those answers are counted.
- With ``--through-relays`` HAProxy sends queries to the relays. Then no answer lacks a point that the relay which has
  passed it on has acknowledged, :data:`GRACE` seconds before, unless it says that its server is behind; none lacks a
  point that its server had just before; and no large answer that looks complete is truncated, of those that somebody
  reads slowly all the time. Databases are created, too: each of them is on both servers in the end.
- In the end both servers have the same points: every acknowledged one, and of the datagrams the same ones. Datagrams
  that are lost, with the relay that held them, are counted.

The table that it prints is reStructuredText.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Self

from testing.picture import RELAYS, SERVERS, Picture
from testing.sites import DATABASE, HTTPSender, Sites
from tests.soak.dashboard import Dashboard, Tally, Voters, table
from tests.soak.large_reads import LargeReads
from tests.soak.statements import Statements
from tests.soak.verdict import conclude

RATE = 200.0  # writes a second
# HAProxy asks each relay every 0.5 s how a server is, and the relay takes up to a second to say that it is behind; the
# rest is for processes that wait for their turn.
GRACE = 2.0
DASHBOARD = "127.9.0.1"
SETTLE = 120.0  # seconds, for everything to be well again


def wait_until(holds: Callable[[], object], what: str, limit: float = SETTLE) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {limit:g} s: {what}")
        time.sleep(0.1)


class Run:
    """The picture, the sites, the dashboard, and what is done to them.

    :param grace: see :data:`GRACE`; longer where the machine is slow.
    :param pace: how long the pauses are; 1 is up to 4 s.
    """

    def __init__(
        self,
        directory: str | Path,
        seed: int,
        *,
        signal: str = "KILL",
        grace: float = GRACE,
        pace: float = 1.0,
        through_relays: bool = False,
    ) -> None:
        self.signal = signal
        self._pace = pace
        self._rng = random.Random(f"{seed} {signal}")
        self.picture = Picture(directory, through_relays=through_relays)
        ports = {"haproxy": self.picture.haproxy.port, "nginx": self.picture.nginx.port}
        self.sites = Sites(ports, self.picture.nginx.udp_port, RATE)
        self.voters = Voters(dict.fromkeys(RELAYS, 0.0))
        for sender in self.sites.http:
            sender.names = self.picture.places
        servers = self.picture.servers if through_relays else {}
        self.dashboard = Dashboard(self.picture.haproxy.port, self.sites.http, self.voters, grace, servers)
        self.large = LargeReads(self.picture.haproxy.port, lambda: self.dashboard.tally) if through_relays else None
        self.statements = Statements(self.picture.haproxy.port) if through_relays else None

    def __enter__(self) -> Self:
        self.picture.__enter__()
        try:
            wait_until(self.picture.is_settled, "all is well")
            if self.large is not None:
                self.large.write()
                wait_until(self.picture.is_settled, "the points of large answers are there")
                self.large.start()
            self.dashboard.begin("start")
            self.sites.__enter__()
            self.dashboard.start()
            if self.statements is not None:
                self.statements.start()
        except BaseException:
            self.picture.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.dashboard.end()
        for client in (self.large, self.statements):
            if client is not None:
                client.end()
        self.sites.__exit__()
        self.picture.__exit__()

    # -- harm

    def hit(self, name: str) -> None:
        """Kill or freeze a part."""
        part = self.picture.parts[name]
        if name in RELAYS:
            self.voters.since[name] = None
        part.kill() if self.signal == "KILL" else part.pause()

    def heal(self, name: str) -> None:
        """Start it again, or let it go on."""
        part = self.picture.parts[name]
        part.start() if self.signal == "KILL" else part.resume()
        if name in RELAYS:
            self.voters.since[name] = time.monotonic()

    def run_pair(self, first: str, second: str) -> Tally:
        """Hit one part and then the other; return what was noticed."""
        rng = self._rng
        relays = first in RELAYS and second in RELAYS
        overlap = not relays and rng.random() < 0.5
        tally = self.dashboard.begin(f"{first} {'and' if overlap else 'then'} {second}")
        for sender in self.sites.http:
            sender.longest = 0.0
        before = self._counts()
        self._pause(0.5, 1.0)
        self.hit(first)
        self._pause(0.5, 4.0)
        if overlap:
            self.hit(second)
            self._pause(0.5, 3.0)
            self.heal(first)
        else:
            self.heal(first)
            if relays:
                wait_until(lambda: self.picture.haproxy.states()[f"relays/{first}"] == "UP", f"{first} is back")
            else:
                self._pause(0.0, 1.0)
            self.hit(second)
        self._pause(0.5, 4.0)
        self.heal(second)
        self._finish(tally, before)
        return tally

    def run_lag(self, server: str, seconds: float = 6.0) -> Tally:
        """Let the relays hold back what a server has to get, for so long; return what was noticed."""
        tally = self.dashboard.begin(f"{server} lags")
        before = self._counts()
        self._pause(0.5, 1.0)
        for word, pause in (("pause", seconds), ("resume", 0.0)):
            for relay in RELAYS:
                self.picture.tell(relay, "queues", word, server, "--listener", "http")
            time.sleep(pause)
        self._finish(tally, before)
        return tally

    def _pause(self, least: float, most: float) -> None:
        time.sleep(self._rng.uniform(least, most) * self._pace)

    def _counts(self) -> dict[str, int]:
        return {sender.name: sender.sent for sender in self.sites.all()}

    def _finish(self, tally: Tally, before: dict[str, int]) -> None:
        """Wait until all is well again, stop the senders for a moment, and compare."""
        wait_until(self.picture.is_settled, "all is well again")
        time.sleep(min(self.dashboard.grace, GRACE) + 1)  # the dashboard sees what has come late
        self.sites.pause()
        time.sleep(0.5)  # the last datagrams reach the relays
        wait_until(self.picture.is_settled, "all is written")
        with self.dashboard.asking:
            self.compare(tally, before)
        if self.statements is not None:
            self._compare_databases(self.statements, tally)
        self.sites.resume()

    def _compare_databases(self, statements: Statements, tally: Tally) -> None:
        """Note what statements have failed, and which databases a server lacks in the end."""
        tally.failed += statements.failed
        statements.failed.clear()
        created = list(statements.created)
        deadline = time.monotonic() + SETTLE / 2
        while (missing := statements.missing(created, self.picture.servers)) and time.monotonic() < deadline:
            time.sleep(0.2)
        tally.problems += missing

    def compare(self, tally: Tally, before: dict[str, int], limit: float = SETTLE / 2) -> None:
        """Compare what both servers have with what the senders were told since then."""
        after = self._counts()
        for sender in self.sites.http:
            tally.failed += [words for _, words in sender.failed]
            tally.repeated += sender.repeated
            tally.longest = max(tally.longest, sender.longest)
            sender.failed.clear()
            sender.repeated = 0
        there: dict[str, dict[str, set[int]]] = {}
        deadline = time.monotonic() + limit  # what is under way arrives until then
        while True:
            there = {name: self._points(name) for name in SERVERS}
            if there["influx1"] == there["influx2"] or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        for each in self.sites.all():
            numbers = set(range(before[each.name] + 1, after[each.name] + 1))
            one, two = ({*there[name].get(each.name, ())} & numbers for name in SERVERS)
            if one != two:
                tally.problems.append(f"{each.name}: {_some(one - two)} only on one, {_some(two - one)} only on two")
            if isinstance(each, HTTPSender):
                tally.written += len(numbers)
                acknowledged = numbers & each.acknowledged.keys()
                if acknowledged - (one & two):
                    tally.problems.append(f"{each.name}: acknowledged and lost: {_some(acknowledged - (one & two))}")
            else:
                tally.datagrams += len(numbers)
                tally.lost += len(numbers - (one | two))

    def _points(self, server: str) -> dict[str, set[int]]:
        """Return what a server has, by sender's name."""
        q = f"SELECT n FROM http, udp WHERE time >= {self.dashboard.since} GROUP BY sender"
        parsed = self.picture.servers[server].query(q, DATABASE)
        return {
            f"{series['name']} {series['tags']['sender']}": {row[1] for row in series["values"]}
            for result in parsed["results"]
            for series in result.get("series", ())
        }


def _some(numbers: Iterable[int]) -> str:
    listed = sorted(numbers)
    return f"{listed[:5]}{'' if len(listed) <= 5 else f' and {len(listed) - 5} more'}"


def pairs() -> list[tuple[str, str]]:
    """Return every ordered pair of parts."""
    return list(itertools.permutations((*RELAYS, *SERVERS), 2))


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.failures", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--pairs", type=int, default=len(pairs()), help="how many ordered pairs (default: all 12)")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    parser.add_argument("--signal", choices=("KILL", "STOP"), default="KILL")
    parser.add_argument("--through-relays", action="store_true", help="the relays answer queries")
    parser.add_argument("--keep", action="store_true", help="keep the directory even if all is well")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    directory = tempfile.mkdtemp(prefix="failures-")
    out = sys.stdout
    out.write(f"seed {seed}, SIG{options.signal}, in {directory}\n")
    chosen = pairs()
    if options.pairs < len(chosen):
        random.Random(seed).shuffle(chosen)
    tallies = []
    began = time.monotonic()
    with Run(directory, seed, signal=options.signal, through_relays=options.through_relays) as run:
        scenarios = [partial(run.run_pair, *pair) for pair in itertools.islice(itertools.cycle(chosen), options.pairs)]
        for scenario in (*scenarios, *(partial(run.run_lag, server) for server in SERVERS)):
            tally = scenario()
            tallies.append(tally)
            out.write(f"{time.monotonic() - began:.0f} s: {' | '.join(tally.row())}\n")
            out.writelines(f"  WRONG: {each}\n" for each in (*tally.failed, *tally.old, *tally.problems, *tally.wrong))
            out.flush()
    out.writelines(f"{line}\n" for line in table(tally.row() for tally in tallies))
    wrong = sum(len(tally.failed) + len(tally.old) + len(tally.problems) + len(tally.wrong) for tally in tallies)
    return conclude(out, seed, wrong, directory, keep=options.keep)


if __name__ == "__main__":
    sys.exit(main())
