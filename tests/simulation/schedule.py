"""What the simulations of relays have in common: a seed, a clock, writes, and a command line.

All that is random comes from the seed, and time is a Clock's, so that a seed that fails does so whenever it is run. A
write has a number, its *sequence*, which counts all writes in the order in which the relay took them; each of its lines
sets one point to that number. So what a backend holds in the end tells which write was the last to set a point.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from influxrelay.core.text import count
from influxrelay.core.write import Destination, Write

EPSILON = 1e-6
DESTINATIONS = (
    Destination(b"a", b"", b"ns", (b"", b"", b"")),
    Destination(b"a", b"rp", b"ns", (b"", b"", b"")),
    Destination(b"a", b"", b"s", (b"", b"", b"")),
    Destination(b"a", b"", b"ns", (b"", b"user", b"")),
)
S = TypeVar("S")


class Violation(AssertionError):
    """The contract does not hold."""


def sequence_of(body: bytes) -> int:
    """Return the sequence that the first line of a body sets; -1 if there is none."""
    return int(body.partition(b" v=")[2].partition(b"i")[0] or -1)


class BoundedClock(Clock):
    """A Clock for a schedule that must end, also if it sets timers for now, again and again."""

    def __init__(self, schedule: Schedule[Any], max_events: int) -> None:
        super().__init__()
        self._schedule = schedule
        self._max_events = self._left = max_events

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:  # noqa: A002 (Clock's)
        """Refuse where there is no end."""
        self._left -= 1
        if self._left < 0:
            raise self._schedule.broken(f"it does not end: {self._max_events} events")
        return super().callLater(delay, callable, *args, **kw)


class Schedule(Generic[S]):
    """One schedule.

    :param trace: is told what happens.
    :ivar stories: each write, and what happens to it, by sequence.
    :ivar places: how many of the destinations are written to.
    :ivar poison: the probability that a write has a line that every backend refuses.
    :ivar padding: how long a line may become.
    :cvar max_events: how many timers may be set; more mean that the schedule does not end.
    :cvar destinations: where writes may go.
    """

    max_events = 5_000
    destinations: Sequence[Destination] = DESTINATIONS
    max_batch: int
    max_in_flight: int
    places: int
    poison: float
    padding = 0

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        self.rng = random.Random(seed)
        self.trace = trace
        self.clock = BoundedClock(self, self.max_events)
        self.stories: dict[int, S] = {}
        self.problems: list[Violation] = []

    def broken(self, message: str) -> Violation:
        """Note a violation, also where an exception would end in a Deferred."""
        problem = Violation(message)
        self.problems.append(problem)
        self.note(f"BROKEN: {message}")
        return problem

    def note(self, message: str) -> None:
        """Trace what happens."""
        if self.trace is not None:
            self.trace(f"{self.clock.seconds():8.4f} {message}")

    def raise_problem(self) -> None:
        """Raise the first violation."""
        if self.problems:
            raise self.problems[0]

    def note_in_flight(self, backend: Any, destination: Destination) -> None:
        """Check that no more is under way to a model backend than may be."""
        count = sum(each == destination for each in backend.under_way.values())
        if count > self.max_in_flight:
            self.broken(f"{backend.name} has {count} requests of one destination in flight")
        if self.clock.seconds() < backend.not_before - EPSILON:
            self.broken(f"{backend.name} was asked before its Retry-After")

    def next_write(self) -> tuple[int, Write, bool]:
        """Return the next write, its sequence, and whether it is poisoned."""
        rng = self.rng
        sequence = len(self.stories)
        where = rng.randrange(self.places)
        poisoned = rng.random() < self.poison
        points = rng.sample(range(4), rng.choice((1, 1, 2)))
        padding = b',x="%s"' % (b"x" * rng.randrange(self.padding)) if self.padding else b""
        lines = [b"p%d,d=%d v=%di%s 1" % (point, where, sequence, padding) for point in points]
        if poisoned:
            lines.insert(rng.randrange(len(lines) + 1), b"bad,d=%d v=%di !" % (where, sequence))
        query = b"db=a&place=%d" % where + rng.choice((b"", b"", b"", b"&pretty=true"))
        body = b"\n".join(lines) + rng.choice((b"", b"\n"))
        return sequence, Write(self.destinations[where], query, b"", body, rng.random() < 0.85), poisoned

    def until_quiet(self) -> None:
        """Let time pass until nothing more is to happen."""
        clock = self.clock
        while not self.problems and (calls := clock.getDelayedCalls()):
            clock.rightNow = max(clock.rightNow, min(call.getTime() for call in calls))
            clock.advance(0)
        self.raise_problem()

    def check_sender_is_idle(self, sender: Any) -> None:
        """Check that a sender has forgotten everything."""
        left = (sender.queues.memory.size, sender.requests.in_flight, len(sender.queues), len(sender.clients))
        if left != (0, 0, 0, 0):
            self.broken(f"{sender.name} has something left: {left}")
        if not sender.drained().called:
            self.broken(f"{sender.name} is not drained")


class Runnable(Protocol):
    """A schedule, made of a seed and, if it is to be traced, of what is told."""

    def run(self) -> None:
        """Let it happen, and check it."""


def run(first: int, count: int, report: Callable[[int, Violation], object], world: Callable[[int], Runnable]) -> int:
    """Run schedules, report those that break the contract, and return how many did."""
    broken = 0
    for seed in range(first, first + count):
        try:
            world(seed).run()
        except Violation as problem:
            broken += 1
            report(seed, problem)
    return broken


def main(arguments: list[str], world: Callable[..., Runnable]) -> int:
    """Run the command line of a simulation."""
    parser = argparse.ArgumentParser(description="Run random schedules of a simulation.")
    parser.add_argument("seed", type=int, nargs="?", help="replay this one with a trace")
    parser.add_argument("--count", type=int, default=1, help="run as many")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first of them")
    options = parser.parse_args(arguments)
    write = sys.stdout.write
    if options.seed is not None:
        try:
            world(options.seed, lambda line: write(line + "\n")).run()
        except Violation as problem:
            write(f"seed {options.seed}: {problem}\n")
            return 1
        return 0
    started = time.monotonic()
    broken = run(options.first, options.count, lambda seed, problem: write(f"seed {seed}: {problem}\n"), world)
    seconds = time.monotonic() - started
    write(f"{count(options.count, 'schedule')} in {seconds:.1f} s, {broken} broken\n")
    return 1 if broken else 0
