"""Relays that share a journal, each with its own clock, and what goes wrong with them: the base of two simulations.

Processes stop and go on, die and are started again; connections break; messages to and from the cluster travel for any
time, or get lost; the cluster loses its quorum. Clocks run a little faster or slower than the world's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from influxrelay.journal.interface import Key
from influxrelay.journal.shared.state import BackendState
from testing.memory_stream import MemoryCluster, MemoryEngine
from testing.memory_watches import PUSH
from testing.shared_journals import LEASE, Relay
from tests.simulation.schedule import Violation

BACKENDS: Mapping[Key, tuple[str, str]] = {"a": ("a", "http://a"), "b": ("b", "http://b")}
CALM = 40.0  # seconds after which all is well again, and which it then takes at most until everything is done
DRIFT = 0.01  # by which clocks are faster or slower
STEPS = (0.001, 0.01, 0.02, 0.05)  # seconds


class Failing(Protocol):
    """A server that may be down."""

    name: str
    is_up: bool


class Machine:
    """A relay's process, and its clock.

    :ivar rate: of its clock.
    :ivar is_stopped: as by SIGSTOP.
    :ivar is_leaving: whether it stops in order.
    """

    def __init__(self, relay: Relay, rate: float) -> None:
        self.relay = relay
        self.rate = rate
        self.is_stopped = self.is_leaving = False

    def time(self, seconds: float, *, runs: bool) -> None:
        """Let its clock go on, and, if it runs, what is due on it happen."""
        if runs:
            self.relay.clock.advance(seconds * self.rate)
        else:
            self.relay.clock.rightNow += seconds * self.rate


class GroupWorld:
    """One schedule.

    :param trace: is told what happens.
    :ivar machines: those that live.
    """

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        rng = self.rng = random.Random(seed)
        self.trace = trace
        self.clock = Clock()
        self.cluster = MemoryCluster(self.clock)
        self.machines: list[Machine] = []
        self.started = 0
        self.problems: list[Violation] = []
        self._slowness = rng.choice((0.0, 0.01, 0.1, 1.0, LEASE))
        self._losses = rng.choice((0.0, 0.0, 0.02, 0.2))
        self._cursors: dict[str, int] = {}
        self._checked: dict[str, int] = {}  # the last revision of each value
        self._is_calm = False
        self._open: set[MemoryEngine] = set()  # those that can stand the loss of a message
        self._rate = 0.0  # of steps in which something is written
        self.cluster.travel = self._travel

    # -- what happens

    def run(self) -> None:
        """Let everything happen.

        :raises Violation: something that must not be.
        """
        rng = self.rng
        for _ in range(rng.choice((2, 2, 3))):
            self.start()
        while self.clock.seconds() < CALM:
            self.step(rng.choice(STEPS))
            if rng.random() < 0.01:
                self.fault()
            self.act()
        self.heal()
        while not self.is_done():
            self.step(0.02)
            if self.clock.seconds() > 2 * CALM:
                raise self.broken("it does not come to rest")
        if not self.problems:
            self.check_end()
        if self.problems:
            raise self.problems[0]

    def step(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)
        for machine in list(self.machines):
            machine.time(seconds, runs=not machine.is_stopped)
        self.check()
        if self.problems:
            raise self.problems[0]

    def act(self) -> None:
        """Do what this simulation is about."""

    def write_and_fail(self, write: Callable[[Any], object], servers: Sequence[Failing], fault: float) -> None:
        """Write something through a relay; have one of the servers go down or come up.

        :param fault: how likely the latter is.
        """
        rng = self.rng
        if rng.random() < self._rate:
            running = [each for each in self.machines if not each.is_stopped and each.relay.engine in self._open]
            if running:
                write(rng.choice(running).relay)
        if rng.random() < fault:
            server = rng.choice(servers)
            server.is_up = not server.is_up
            self.note(f"{server.name} is {'up' if server.is_up else 'down'}")

    def is_done(self) -> bool:
        """Tell whether nothing more will happen that matters."""
        raise NotImplementedError

    def check_end(self) -> None:
        """Check what has come out."""

    def note(self, message: str) -> None:
        """Trace what happens."""
        if self.trace is not None:
            self.trace(f"{self.clock.seconds():8.3f} {message}")

    def broken(self, message: str) -> Violation:
        """Note a violation, also where an exception would end in a Deferred."""
        problem = Violation(message)
        self.problems.append(problem)
        self.note(f"BROKEN: {message}")
        return problem

    # -- faults

    def _travel(self, what: str, engine: MemoryEngine) -> float | None:
        if self._is_calm:
            return 0.001
        rng = self.rng
        if what != PUSH and engine in self._open and rng.random() < self._losses:
            return None
        return rng.random() * self._slowness if rng.random() < 0.3 else 0.0

    def make_relay(self, name: str) -> Relay:
        """Return a new relay."""
        return Relay(self.cluster, name, backends=BACKENDS)

    def start(self) -> None:
        """Start a process."""
        self.started += 1
        name = f"r{self.started}"
        self.note(f"{name} starts")
        relay = self.make_relay(name)
        machine = Machine(relay, 1 + self.rng.uniform(-DRIFT, DRIFT))
        self.machines.append(machine)
        relay.opened.addCallbacks(lambda _: self._open.add(relay.engine), self._not_started, errbackArgs=(machine,))

    def _left(self, machine: Machine) -> None:
        if machine in self.machines:
            self.machines.remove(machine)

    def _not_started(self, failure: Failure, machine: Machine) -> None:
        self.note(f"{machine.relay.journal.relay} cannot start: {failure.value}")
        machine.relay.engine.vanish()
        if machine in self.machines:
            self.machines.remove(machine)
            self.start()

    def fault(self) -> None:
        """Let something go wrong, or be well again."""
        rng = self.rng
        machine = rng.choice(self.machines)
        name = machine.relay.journal.relay
        what = rng.choice(("kill", "stop", "stop", "go on", "go on", "cut", "mend", "mend", "quorum", "stop in order"))
        self.note(f"{what} {name}")
        if what == "kill" or (what == "stop in order" and machine.is_stopped):
            machine.relay.engine.vanish()
            self.machines.remove(machine)
            if not machine.is_leaving:
                self.start()
        elif what == "stop in order":
            if not machine.is_leaving:
                machine.is_leaving = True
                machine.relay.journal.stop(5.0).addCallback(lambda _: self._left(machine))
                self.start()
        elif what == "stop":
            machine.is_stopped = True
            machine.relay.engine.pause()
        elif what == "go on":
            self.go_on(machine)
        elif what == "cut":
            machine.relay.engine.cut()
        elif what == "mend":
            machine.relay.engine.mend()
        else:
            self.cluster.quorum = not self.cluster.quorum

    def go_on(self, machine: Machine) -> None:
        """Let a process go on: timers and messages are in any order."""
        if machine.is_stopped:
            machine.is_stopped = False
            if self.rng.random() < 0.5:
                machine.time(0.0, runs=True)
            machine.relay.engine.resume()

    def heal(self) -> None:
        """Let all be well."""
        self.note("all is well")
        self._is_calm = True
        self.cluster.quorum = True
        for machine in list(self.machines):
            machine.relay.engine.mend()
            self.go_on(machine)

    # -- what must hold at every moment

    def check(self) -> None:
        """Check that no two deliver, and that no cursor moves back."""
        for key in BACKENDS:
            valid = [each.relay.journal.relay for each in self.machines if each.relay.journal.is_valid(key)]
            if len(valid) > 1:
                self.broken(f"{' and '.join(valid)} have the lease of {key}")
        for entry in self.cluster.values.entries.values():
            if entry.value is not None and entry.revision != self._checked.get(entry.key):
                self._checked[entry.key] = entry.revision
                cursor = BackendState.decode(entry.value).cursor
                if cursor < self._cursors.get(entry.key, 0):
                    self.broken(f"the cursor of {entry.key} moves back")
                self._cursors[entry.key] = cursor

    def delivered_by(self, key: Any) -> list[Relay]:
        """Return which relays deliver to a backend."""
        return [each.relay for each in self.machines if each.relay.journal.is_valid(key)]
