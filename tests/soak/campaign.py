"""A campaign of kills and faults against real servers, and a count of what is missing afterwards.

``python -m tests.soak.campaign --rounds 200 [--seed N]``. Two influxd stand behind one relay with a journal, each
behind a proxy of ours that misbehaves as networks and servers do. Writers write all the time. In each round the proxies
get new moods, the relay is killed (``kill -9``) at some moment or, now and then, stopped in order, and sometimes an
influxd is killed or frozen, too. In the end all is well again, the journal drains, and both servers are compared with
what the writers were told.

A writer numbers its writes, which are lines; every fourth writer sends Prometheus' remote writes instead. Each write
sets one point of its own that no other write touches, and one point of the round that it shares with the writer's other
writes of that round, both to the write's number. A writer never sends a write twice, sends the next one only after the
answer to the last, and notes what it was told: *acknowledged* (2xx), *refused* (4xx, 5xx) or *unknown* (the connection
broke). What is checked, for each server:

- An acknowledged write's own point is there. Or the server refused it with a 400 (the second one's proxy refuses what
  holds the word "poison"), and it is among that backend's dead letters, with the server's words.
- A shared point has the number of the last acknowledged write to it, or that of a later write to it that was refused or
  unknown: such a one may be on both servers, on one or on none, for each is sent to both before its fate is known. It
  never has an older one, so wherever the last write was acknowledged, both servers are equal.
- No point has a number that its writer did not give to it.
- The journal is empty, has dropped nothing, and has no dead letters but of poisoned writes.
- Each write got its answer, or the end of its connection, within :data:`PATIENCE` seconds.

The seed fixes what is done to the servers, not how the processes' threads fall in with it: a failing seed is likely to
fail again, not sure to.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from influxrelay.core.text import count
from influxrelay.operations.views import lines_of
from testing.kept_journal import KeptJournal
from testing.servers import LOOPBACK, Influxd, Relay, free_port, send
from tests.soak.campaign_clients import EPOCH, PATIENCE, PLACES, REMOTE_PLACE, Fate, Writer, make_writer
from tests.soak.faults import MOODS, POISONED, TIMEOUT, FaultProxy, Proxies
from tests.soak.verdict import conclude

DRAIN = 60.0  # seconds
NAMES = ("one", "two")
WORDS = ("unable to parse: poison", "the rest of its answer could not be read")  # the latter after "cut-after"


class Campaign:
    """The servers, the writers, and what is done to them.

    :ivar round: the number of the round.
    :ivar counts: what was done.
    """

    def __init__(self, directory: str | Path, seed: int, *, writers: int = 8) -> None:
        self.seed = seed
        self.directory = Path(directory).resolve()
        self.over = threading.Event()
        self.round = 0
        self.counts: Counter[str] = Counter()
        self._frozen: set[str] = set()
        self._rng = random.Random(seed)
        self._proxies = Proxies()
        self.servers = {name: Influxd(self.directory / name) for name in NAMES}
        self.proxies = {
            name: FaultProxy(name, self._proxies, server.http_port, random.Random(f"{seed} {name}"))
            for name, server in self.servers.items()
        }
        self.port = free_port()
        self.journal = self.directory / "journal"
        self.relay = Relay(self.directory / "relay", self._configuration(), self.port)
        self.writers = [make_writer(number, self, random.Random(f"{seed} {number}")) for number in range(writers)]

    def _configuration(self) -> str:
        lines = [
            "[[http]]",
            'name = "campaign"',
            f'bind-addr = "{LOOPBACK}:{self.port}"',
            f'journal = "{self.journal}"',
        ]
        for name, proxy in self.proxies.items():
            lines += [
                "[[http.output]]",
                f'name = "{name}"',
                f'location = "http://{LOOPBACK}:{proxy.port}/write"',
                f'timeout = "{TIMEOUT:g}s"',
                'max-delay-interval = "1s"',
                "max-waiting-mb = 1",
            ]
        return "\n".join([*lines, ""])

    def __enter__(self) -> Self:
        for server in self.servers.values():
            server.start()
            for name in sorted({place["db"] for place in (*PLACES, REMOTE_PLACE)}):
                server.create_database(name)
        self.heal()
        self.relay.start()
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.relay.kill()
        for writer in self.writers:
            writer.join()
        for server in self.servers.values():
            server.kill()
        for proxy in self.proxies.values():
            proxy.feel("end")
        self._proxies.stop()

    def heal(self) -> None:
        """Let the network be well."""
        for proxy in self.proxies.values():
            proxy.feel("well")

    def run_round(self) -> None:
        """Do a round's harm, and have all processes run again."""
        rng = self._rng
        self.round += 1
        for proxy in self.proxies.values():
            proxy.feel(rng.choice(MOODS), rng.choice((0.3, 1.0)))
        harms: list[tuple[float, Any]] = []
        if rng.random() < 0.85:
            harms.append((rng.uniform(0.1, 0.9), self._kill_relay))
        elif rng.random() < 0.5:
            harms.append((rng.uniform(0.1, 0.9), self._restart_relay))
        for name in NAMES:
            chance = rng.random()
            if chance < 0.08:
                harms.append((rng.uniform(0.0, 0.9), lambda name=name: self._kill_server(name)))
            elif chance < 0.16:
                harms.append((rng.uniform(0.0, 0.9), lambda name=name: self._freeze(name)))
        began = time.monotonic()
        for when, harm in sorted(harms, key=lambda each: each[0]):
            time.sleep(max(0.0, began + when - time.monotonic()))
            harm()
        time.sleep(max(0.0, began + 1.0 - time.monotonic()))
        self._wake_servers()
        if not self.relay.is_running:
            self.relay.start()

    def _kill_relay(self) -> None:
        self.relay.kill()
        self.counts["kill -9 relay"] += 1
        if self._rng.random() < 0.8:
            self.relay.start()

    def _restart_relay(self) -> None:
        self.relay.restart()
        self.counts["stop relay"] += 1

    def _kill_server(self, name: str) -> None:
        self.servers[name].kill()
        self.counts[f"kill -9 {name}"] += 1

    def _freeze(self, name: str) -> None:
        """Stop a server in its tracks, until the round's end; what waits in its sockets it reads then."""
        self.servers[name].pause()
        self.counts[f"SIGSTOP {name}"] += 1
        self._frozen.add(name)

    def _wake_servers(self) -> None:
        for server in self.servers.values():
            if not server.is_running:
                server.start()
        if self._frozen:
            # What was sent before it froze is applied before what is sent from now on: nobody can say in which order
            # a server reads two connections.
            for name in self._frozen:
                self.proxies[name].feel("refuse")
                self.servers[name].resume()
            time.sleep(0.3)
            self._frozen.clear()

    # -- the end

    def finish(self) -> list[str]:
        """Heal everything, let the journal drain, and return what is wrong, a line for each thing."""
        self.heal()
        time.sleep(0.5)
        self.over.set()
        for writer in self.writers:
            writer.join()
        problems = [
            f"writer {writer.number}: {count(writer.unanswered, 'write')} without an answer for {PATIENCE:g} s"
            for writer in self.writers
            if writer.unanswered
        ]
        if not self._drained():
            problems.append(f"the journal has not drained within {DRAIN:g} s: {self._behind()}")
        self.relay.stop()
        dead = self._check_journal(problems)
        for name, server in self.servers.items():
            for writer in self.writers:
                self._checkmake_writer(name, server, writer, dead, problems)
        return problems

    def _behind(self) -> list[str]:
        """Return what the relay says of the backends that are not in sync."""
        answers = [send("GET", f"{self.relay.url}/health/backends/{name}") for name in NAMES]
        return [body.decode().strip() for status, body in answers if status != 200]

    def _drained(self) -> bool:
        deadline = time.monotonic() + DRAIN
        while self._behind():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _check_journal(self, problems: list[str]) -> set[tuple[int, int]]:
        """Look at what the relay has left; return the dead letters, as writer and number."""
        journal = KeptJournal(self.journal)
        try:
            problems += [f"waiting: {depth}" for depth in journal.depths() if depth.writes or not depth.active]
            problems += [f"dropped: {drop}" for drop in journal.drops()]
            dead: Counter[tuple[int, int]] = Counter()
            for letter in journal.dead_letters():
                said = "\n".join(lines_of(letter.write))
                found = re.match(r'own,w=(\d+) v=(\d+)i|own\{w="(\d+)".*\} (\d+) ', said)
                if found is None or "poison" not in said or letter.backend != POISONED:
                    problems.append(f"a dead letter that should be none: {letter}")
                elif letter.status != 400 or not any(each in letter.message for each in WORDS):
                    problems.append(f"a dead letter with other words than the backend's: {letter}")
                else:
                    dead[int(found[1] or found[3]), int(found[2] or found[4])] += 1
        finally:
            journal.close()
        self.counts["dead letters"] = len(dead)
        self.counts["dead letters twice"] = sum(count > 1 for count in dead.values())
        return set(dead)

    def _checkmake_writer(
        self, name: str, server: Influxd, writer: Writer, dead: set[tuple[int, int]], problems: list[str]
    ) -> None:
        """Compare one server with what one writer was told."""
        where = f"server {name}, writer {writer.number} ({urlencode(writer.place)})"
        own, shared = (self._points(server, measurement, writer) for measurement in ("own", "shared"))
        last: dict[int, int] = {}  # by round: the last number that must be there
        maybe: dict[int, set[int]] = {}  # by round: later ones that may be there
        for told in writer.told.values():
            there = own.pop(told.number, None)
            if there not in (None, told.number):
                problems.append(f"{where}: the point of write {told.number} has the value {there}")
            if name == POISONED and told.poisoned:
                if there is not None:
                    problems.append(f"{where}: there, although the server refused it: {told}")
                elif told.fate is Fate.ACKNOWLEDGED and (writer.number, told.number) not in dead:
                    problems.append(f"{where}: no dead letter: {told}")
            elif told.fate is Fate.ACKNOWLEDGED:
                last[told.round], maybe[told.round] = told.number, set()
                if there is None:
                    problems.append(f"{where}: missing: {told}")
            else:
                maybe.setdefault(told.round, set()).add(told.number)
                self.counts[f"{told.fate.value}, {'on' if there is not None else 'not on'} {name}"] += 1
        problems += [f"{where}: a point {number} that was never written" for number in own]
        for at in sorted(shared.keys() | last.keys()):
            value, allowed = shared.get(at), {last.get(at), *maybe.get(at, ())}
            if value not in allowed:
                told_of = [writer.told.get(each or 0) for each in (value, last.get(at))]
                problems.append(f"{where}: round {at} ended with {value} ({told_of[0]}) instead of {told_of[1]}")

    def _points(self, server: Influxd, measurement: str, writer: Writer) -> dict[int, int]:
        """Return a writer's points: the value by what its timestamp says, a write's or a round's number."""
        query = f"SELECT {writer.field} FROM {measurement} WHERE w = '{writer.number}'"
        rows = server.rows(query, writer.place["db"])
        return {stamp // 1_000_000_000 - EPOCH: int(value) for stamp, value in rows}

    def summary(self) -> str:
        """Return what was done, in some lines."""
        told = Counter(each.fate.value for writer in self.writers for each in writer.told.values())
        faults: Counter[str] = sum((proxy.done for proxy in self.proxies.values()), Counter())
        return "\n".join(
            f"{title}: " + ", ".join(f"{count} {what}" for what, count in sorted(counter.items()))
            for title, counter in (("writes", told), ("harm and state", self.counts), ("faults", faults))
        )


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.campaign", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    parser.add_argument("--keep", action="store_true", help="keep the servers' directories even if all is well")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    directory = tempfile.mkdtemp(prefix="campaign-")
    began = time.monotonic()
    out = sys.stdout
    out.write(f"seed {seed}, in {directory}\n")
    with Campaign(directory, seed) as campaign:
        for number in range(1, options.rounds + 1):
            campaign.run_round()
            if number % 20 == 0:
                out.write(f"{number} rounds, {time.monotonic() - began:.0f} s\n")
                out.flush()
        problems = campaign.finish()
        out.write(f"{campaign.summary()}\n{options.rounds} rounds in {time.monotonic() - began:.0f} s\n")
    for problem in problems:
        out.write(f"WRONG: {problem}\n")
    return conclude(out, seed, len(problems), directory, keep=options.keep)


if __name__ == "__main__":
    sys.exit(main())
