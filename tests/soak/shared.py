"""Kill, freeze and cut off the parts of a group of relays that share a journal, while clients overwrite points.

``python -m tests.soak.shared [--seed N] [--rounds N]``. Two relays, three servers of NATS and two influxd run, and
clients write through both relays. Each round begins one or two faults, at any time of each other, and ends them:

- a relay is killed (``kill -9``), with its directory or without, or stopped in order, and started again;
- a relay is frozen (SIGSTOP) for up to three times its lease;
- a relay is cut off from NATS, with its connections open;
- the connections between relays and NATS break, again and again;
- a server of NATS, perhaps the leader, is killed, frozen, cut off from the others, with or without the relays, or loses
  its disk; or two are killed: no quorum;
- an influxd is killed, or frozen for less long than a request may take.

After each round everything has to be well by itself: both servers have the same, point by point, and everything that
was acknowledged; no value was overwritten by one that had been acknowledged before it began. The time until another
relay delivers is measured where the deliverer was killed, and nothing else was wrong.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testing.servers import ServerError
from testing.sharing import LEASE, Sharing, SharingRelay, Writers, wait_for

BACKENDS = {"b1", "b2"}
ALONE = ("nats wiped", "influxd frozen")
"""What would lose writes together with another fault: two servers of NATS that lack something, or a request that waits
in a frozen influxd while another relay delivers."""
SETTLE = 120.0  # seconds, for everything to be well again


class Campaign:
    """A group, and what is done to it.

    :ivar hand_overs: seconds until another relay delivered what a killed one had.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self.group = Sharing(directory, proxied=True)
        self.hand_overs: list[float] = []
        self.acknowledged = self.refused = 0
        self._rng = random.Random(f"shared {seed}")
        self._first = 1
        self._faults: dict[str, Callable[[], Iterator[None]]] = {
            "relay killed": lambda: self._killed(self._relay(), lost=False),
            "relay lost": lambda: self._killed(self._relay(), lost=True),
            "relay stopped": self._stopped,
            "relay frozen": self._relay_frozen,
            "relay cut off": self._cut_off,
            "nats killed": lambda: self._nats_killed(1),
            "no quorum": lambda: self._nats_killed(2),
            "nats frozen": self._nats_frozen,
            "nats isolated": lambda: self._isolated(reachable=False),
            "nats separated": lambda: self._isolated(reachable=True),
            "nats wiped": self._nats_wiped,
            "connections broken": self._connections_broken,
            "influxd killed": self._influxd_killed,
            "influxd frozen": self._influxd_frozen,
        }

    def run_round(self) -> tuple[str, str]:
        """Run one round; return what was done, and what is wrong."""
        count = self._rng.choice((1, 1, 2))
        names = self._rng.sample(sorted(self._faults), count)
        names = [name for name in names if name in ALONE][:1] or names
        if count == 1 and self._rng.random() < 0.3:
            names = ["relay killed"]
        with Writers(self.group.relays, first=self._first) as writers:
            self._wait(0.3, 1.0)
            if names == ["relay killed"]:
                self._measure()
            else:
                self._run_faults(names)
            self._wait(0.3, 1.0)
            before = writers.count
            wait_for(lambda: writers.count > before + 5, SETTLE, "more acknowledged writes")
        self._first += 1_000_000
        self.acknowledged += writers.count
        self.refused += sum(number for status, number in writers.statuses.items() if status != 204)
        return " + ".join(names), self._look(writers)

    def _run_faults(self, names: list[str]) -> None:
        faults = [contextmanager(self._faults[name])() for name in names]
        for each in faults:
            each.__enter__()
            self._wait(0.1, 1.5 * LEASE)
        self._rng.shuffle(faults)
        for each in faults:
            each.__exit__(None, None, None)
            self._wait(0.0, LEASE)

    def _look(self, writers: Writers) -> str:
        def are_equal() -> bool:
            one, two = self.group.points()
            return one == two and not writers.missing(one) and not writers.missing(two)

        try:
            wait_for(are_equal, SETTLE, "equality")
        except ServerError:
            one, two = self.group.points()
            differing = sorted(key for key in {*one, *two} if one.get(key) != two.get(key))
            missing = [writers.missing(each)[:5] for each in (one, two)]
            return f"differing: {len(differing)} {differing[:5]}, missing: {missing}"
        overtaken = writers.overtaken(self.group.points()[0])
        return f"overtaken: {overtaken[:5]}" if overtaken else ""

    # -- faults

    def _wait(self, least: float, most: float) -> None:
        time.sleep(self._rng.uniform(least, most))

    def _relay(self) -> SharingRelay:
        deliverer = self.group.deliverer(self._rng.choice(sorted(BACKENDS)))
        return deliverer if deliverer is not None and self._rng.random() < 0.7 else self._rng.choice(self.group.relays)

    def _measure(self) -> None:
        """Kill the relay that delivers, and take the time until the other one does."""
        victim = wait_for(lambda: self.group.deliverer("b1"))
        (other,) = (each for each in self.group.relays if each is not victim)
        wait_for(lambda: {*victim.delivers(), *other.delivers()} == BACKENDS)
        began = time.monotonic()
        victim.kill()
        wait_for(lambda: set(other.delivers()) == BACKENDS, what="hand-over")
        self.hand_overs.append(time.monotonic() - began)
        victim.start()

    def _killed(self, relay: SharingRelay, *, lost: bool) -> Iterator[None]:
        if relay.is_running:
            relay.kill()
        yield
        if lost:
            shutil.rmtree(relay.directory)
            relay.directory.mkdir()
        if not relay.is_running:
            relay.start()

    def _stopped(self) -> Iterator[None]:
        relay = self._relay()
        if relay.is_running:
            relay.stop(30)
        yield
        if not relay.is_running:
            relay.start()

    def _relay_frozen(self) -> Iterator[None]:
        relay = self._relay()
        if relay.is_running:
            relay.pause()
        yield
        self._wait(0.0, 1.5 * LEASE)
        if relay.is_running:
            relay.resume()

    def _cut_off(self) -> Iterator[None]:
        relay = self._relay()
        self.group.cut_off(relay)
        yield
        self.group.reconnect(relay)

    def _nats_killed(self, count: int) -> Iterator[None]:
        leader = self.group.nats.leader("shared")
        servers = self._rng.sample(self.group.nats.servers, count)
        if leader is not None and leader not in servers and self._rng.random() < 0.7:
            servers[0] = leader
        for each in servers:
            if each.is_running:
                each.kill()
        yield
        for each in servers:
            if not each.is_running:
                each.start()

    def _nats_frozen(self) -> Iterator[None]:
        server = self._rng.choice(self.group.nats.servers)
        if server.is_running:
            server.pause()
        yield
        self._wait(0.0, 2 * LEASE)
        if server.is_running:
            server.resume()

    def _isolated(self, *, reachable: bool) -> Iterator[None]:
        server = self.group.nats.leader("shared") or self._rng.choice(self.group.nats.servers)
        (self.group.nats.separate if reachable else self.group.nats.isolate)(server)
        yield
        self.group.nats.rejoin(server)

    def _nats_wiped(self) -> Iterator[None]:
        self.group.nats.wait_until_healthy()
        server = self._rng.choice(self.group.nats.servers)
        server.kill()
        server.wipe()
        yield
        server.start()
        self.group.nats.wait_until_healthy()

    def _connections_broken(self) -> Iterator[None]:
        for _ in range(self._rng.randrange(1, 10)):
            for link in self.group.links[self._rng.choice(self.group.relays)]:
                link.reset()
            self._wait(0.0, 0.3)
        yield

    def _influxd_frozen(self) -> Iterator[None]:
        server = self._rng.choice(self.group.backends)
        server.pause()
        self._wait(0.1, 3.0)  # less than the timeout of a request
        server.resume()
        yield

    def _influxd_killed(self) -> Iterator[None]:
        server = self._rng.choice(self.group.backends)
        if server.is_running:
            server.kill()
        yield
        if not server.is_running:
            server.start()


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.shared", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    directory = Path(tempfile.mkdtemp(prefix="shared-"))
    out = sys.stdout
    out.write(f"seed {seed}, in {directory}\n")
    campaign = Campaign(directory, seed)
    began = time.monotonic()
    with campaign.group:
        for number in range(1, options.rounds + 1):
            done, wrong = campaign.run_round()
            out.write(f"{number}: {time.monotonic() - began:.0f} s: {done}{f': WRONG: {wrong}' if wrong else ''}\n")
            out.flush()
            if wrong:
                return 1
    shutil.rmtree(directory, ignore_errors=True)
    hand_overs = sorted(campaign.hand_overs)
    if hand_overs:
        late = [each for each in hand_overs if each > LEASE + 1]
        out.write(
            f"{len(hand_overs)} hand-overs after a kill with a lease of {LEASE:g} s: median"
            f" {hand_overs[len(hand_overs) // 2]:.2f} s, longest {hand_overs[-1]:.2f} s, {len(late)} after more than"
            f" {LEASE + 1:g} s\n"
        )
    out.write(f"{campaign.acknowledged} writes acknowledged, {campaign.refused} not; nothing is wrong\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
