"""A seeded simulation of relays with queues: backends that fail, a disk that fails, a process that is killed.

``python -m tests.simulation.queue SEED`` replays one schedule with a trace, ``--count N`` runs N without one.

The real FanOut, senders, queues and backlogs run against the model backends of :mod:`tests.simulation.model_backend`;
the journal is real too, and the JournalWriter's thread is a timer. A write's sequence counts the writes through all of
the relay's processes.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.python.failure import Failure

from influxrelay.config.settings import FilterConfig as FilterSettings
from influxrelay.config.settings import HTTPListenerConfig, HTTPOutputConfig
from influxrelay.config.settings import JournalConfig as JournalSettings
from influxrelay.core.replies import TAKEN
from influxrelay.core.write import Reply
from influxrelay.delivery.destination_queue import ENTRY_BYTES, QUEUE_BYTES
from influxrelay.delivery.settings import SenderSettings
from influxrelay.journal.records import JournalLimits
from influxrelay.lineprotocol.filters import Filter
from tests.simulation.queue_checks import CheckedSchedule
from tests.simulation.queue_process import Process, ProcessClock, SimulatedListener
from tests.simulation.queue_server import QueueStory, Server, part_of
from tests.simulation.schedule import main, sequence_of

MAX_COMMIT = 0.2  # seconds that a transaction takes at the most
SHM = Path("/dev/shm")
CONSISTENCIES = ("any", "one", "one", "quorum", "all")


class World(CheckedSchedule):
    """One schedule."""

    make_server: Callable[[int, Any], Server] = Server

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(seed, trace)
        rng = self.rng
        self.max_batch = rng.choice((60, 200, 20_000))
        self.max_in_flight = rng.choice((1, 1, 1, 1, 1, 2, 3))
        self.on_disk = rng.random() < 0.7
        self.commit_delay = rng.choice((0.002, 0.02, MAX_COMMIT))
        self.refuse_unjournaled = rng.random() < 0.5
        self.journal_first = self.on_disk and random.Random(f"{seed} journal first").random() < 0.3
        self.crashes = self.stops = 0
        self.stopping = False
        self.padding = rng.choice((0, 0, 0, 3000))
        self.poison = rng.choice((0.0, 0.1, 0.3))
        self.places = rng.randint(1, len(self.destinations))
        self._consistency = rng.choice(("", "", *CONSISTENCIES))
        self.max_delay = rng.choice((1.0, 10.0))
        self.create_databases = rng.random() < 0.3
        size = QUEUE_BYTES + ENTRY_BYTES + 60 + self.padding
        # With a journal there is room for the queues, else writes would be lost for a backend that may yet get them.
        self.max_waiting = rng.choice((size, 3 * size, 100_000)) + self.on_disk * 4 * QUEUE_BYTES
        self.max_bytes = rng.choice((size, 4 * size, 10 * size, 10_000_000))
        self.drop_oldest = rng.random() < 0.5
        self._limit = rng.choice((0, 0, 0, 1, 3)) if self.padding else 0
        self._max_age = rng.choice((0.0, 0.0, 0.0, 2.0, 20.0))
        self.servers = [self.make_server(number, self) for number in range(4)]
        self.outputs = {f"output{number}": self.servers[number] for number in range(rng.choice((2, 2, 3)))}
        for server in self.outputs.values():
            server.configured = True
        self.names = 10

    # -- the processes

    def configuration(self, outputs: dict[str, Server]) -> HTTPListenerConfig:
        """Return a configuration with these outputs."""
        made = []
        for name, server in outputs.items():
            url = f"http://{server.number}"
            made.append(HTTPOutputConfig(name, url, url, url, filters=self.filters_of(server)))
        journal = JournalSettings(self.directory) if self.on_disk else None
        return HTTPListenerConfig("simulation", "", "", journal=journal, outputs=tuple(made))

    def settings(self, name: str, wanted: Filter | None) -> SenderSettings:
        """Return how the sender to a backend works in this schedule."""
        return SenderSettings(
            name=name,
            listener="simulation",
            max_batch=self.max_batch,
            max_in_flight=self.max_in_flight,
            max_waiting=self.max_waiting,
            buffer=self.max_bytes,
            drop_oldest=self.drop_oldest,
            max_delay=self.max_delay,
            create_databases=self.create_databases,
            filter=wanted,
        )

    def filters_of(self, server: Server) -> tuple[FilterSettings, ...]:
        """Return what the configuration says of what a server takes."""
        return ()

    def start(self) -> None:
        """Start a process."""
        self.generation += 1
        reactor = ProcessClock(self)
        listener = SimulatedListener(self.configuration(self.outputs), reactor, self)
        self.process = Process(reactor, listener)
        backlogs = listener.journal.open()
        writer = self.process.writer
        if writer is not None and ((self._limit and not self.limits.max_bytes) or self._max_age):
            most = writer.used + self._limit * 8192 if self._limit else 0
            self.limits = JournalLimits(self.limits.max_bytes or most, self._max_age, self.drop_oldest)
            writer.reconfigure(self.limits, full_sync=False)
        listener.resume(backlogs)
        names = {name: server.number for name, server in self.outputs.items()}
        self.note(f"process {self.generation} starts with {names}, and limits {self.limits}")

    def crash(self) -> None:
        """Kill the process, look at what it leaves, and start another in a while."""
        process = self.process
        if process is None:
            return
        self.note("the process is killed")
        self.crashes += 1
        for story in self.stories.values():
            story.gone = story.gone or not story.answers
        process.reactor.kill()
        for server in self.servers:
            server.forget()
        if process.writer is not None:
            process.writer.kill()
        self._bury(process)
        self._over()

    def stop(self) -> None:
        """Stop the process as the service does, and start another in a while."""
        process = self.process
        if process is None or self.stopping:
            return
        self.note("the process is stopped")
        self.stops += 1
        self.stopping = True
        for sender in process.senders:
            sender.close()
            sender.backend.abort()
        if process.writer is None:
            self._stopped(process)
        else:
            process.writer.stop().addCallback(lambda _: self._stopped(process))

    def _stopped(self, process: Process) -> None:
        if self.process is not process:
            return
        for story in self.stories.values():
            if not (story.answers or story.gone):
                self.broken(f"the client of write {story.sequence} got no answer before the end")
        process.reactor.kill()
        if process.writer is not None:
            process.writer.end()
        for server in self.servers:
            server.forget()
        self._bury(process)
        self._over()

    def _bury(self, process: Process) -> None:
        """Excuse what is lost with the process's memory, and check that nothing else is."""
        self.process = None
        for sender in process.senders:
            server = self.servers[sender.number]
            self._collect(sender.backlog, server)
            # What was stored without an answer may have been overwritten by an older one that was sent again, too.
            held = {sequence_of(entry.write.body) for queue in sender.queues for entry in queue.entries()}
            for story in self.stories.values():
                if not self.on_disk:
                    delivered = story.sequence in server.letters or server.has(story)
                    delivered = delivered and story.sequence not in held
                    if not delivered and not (self.stopping and story.generation == self.generation):
                        story.excused.add(server.number)
                elif story.unjournaled:
                    story.excused.add(server.number)
        if self.on_disk:
            self._check_file()

    def _over(self) -> None:
        self.stopping = False
        self.clock.callLater(self.rng.random(), self._start_another)

    def _start_another(self) -> None:
        rng = self.rng
        change = rng.choice(("", "", "", "", "add", "remove", "rename", "reorder"))
        self.configure(self.changed(rng, change))
        self.start()

    def changed(self, rng: random.Random, change: str) -> dict[str, Server]:
        """Return other outputs."""
        outputs = dict(self.outputs)
        if change == "add":
            free = [server for server in self.servers if not server.configured]
            if free:
                server = rng.choice(free)
                self.names += 1
                outputs[f"output{self.names}"] = server
        elif change == "remove" and len(outputs) > 1:
            outputs.pop(rng.choice(list(outputs)))
        elif change == "rename":
            self.names += 1
            name = rng.choice(list(outputs))
            outputs[f"output{self.names}"] = outputs.pop(name)
        elif change == "reorder":
            items = list(outputs.items())
            rng.shuffle(items)
            outputs = dict(items)
        return outputs

    def configure(self, outputs: dict[str, Server]) -> None:
        """Let other outputs hold: what one that is removed does not have it need not get."""
        before, after = list(self.outputs.values()), list(outputs.values())
        for server in self.servers:
            server.configured = server in after
            if server in after and server not in before:
                server.arrived.clear()
                server.applied.clear()
            if server in before and server not in after:
                for story in self.stories.values():
                    story.excused.add(server.number)
        self.outputs = outputs

    # -- the schedule

    def run(self) -> None:
        """Let the schedule happen, and check it."""
        self.directory = tempfile.mkdtemp(prefix="influxrelay-", dir=SHM if SHM.is_dir() else None)
        try:
            self._run()
        finally:
            if self.process is not None and self.process.writer is not None:
                self.process.writer._tail.close()
                self.process.writer._store.close()
            shutil.rmtree(self.directory)

    def _run(self) -> None:
        rng = self.rng
        length = rng.choice((0.2, 1.0, 5.0, 5.0))
        self.start()
        for _ in range(rng.randint(5, 40)):
            self.clock.callLater(rng.random() * length, self.submit, rng.choice((0, 0, 0, 1, 3)))
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            self.clock.callLater(rng.random() * (length + 1), self.crash)
        if rng.random() < 0.2:
            self.clock.callLater(rng.random() * (length + 1), self.stop)
        if self.on_disk:
            for _ in range(rng.choice((0, 0, 1, 2))):
                begin = rng.random() * length
                self.clock.callLater(begin, rng.choice((self._break_disk, self._break_disk, self._freeze_disk)))
                self.clock.callLater(begin + rng.random() * rng.choice((0.1, 2.0)), self._mend_disk)
        self.plan(length)
        self.clock.callLater(length + 4, self._heal)
        self.until_quiet()
        self._check()

    def plan(self, length: float) -> None:
        """Let more happen within this time."""

    def _break_disk(self) -> None:
        self.note("the disk fails")
        self.disk_is_bad = True

    def _freeze_disk(self) -> None:
        self.note("the disk hangs")
        self.disk_hangs = True

    def _mend_disk(self) -> None:
        self.note("the disk works")
        self.disk_is_bad = self.disk_hangs = False

    def _heal(self) -> None:
        self.note("all is well")
        self.disk_is_bad = self.disk_hangs = False
        for server in self.servers:
            server.heal()

    def submit(self, more: int) -> None:
        """Submit a write, and ``more`` when it is answered, in the moment in which the client is told."""
        if self.process is None or self.stopping:
            return
        sequence, write, poisoned = self.next_write()
        story = QueueStory(sequence, write, self.clock.seconds(), poisoned=poisoned)
        story.generation = self.generation
        story.consistency = self._consistency or self.rng.choice(CONSISTENCIES)
        parts = {server.number: part_of(write.body, server.filter) for server in self.outputs.values()}
        story.parts = {number: part for number, part in parts.items() if part}
        where = self.destinations.index(write.destination)
        self.note(f"write {sequence} to {where}, {story.consistency}{', poisoned' if poisoned else ''}")
        self.hand_in(story, more)

    def hand_in(self, story: QueueStory, more: int) -> None:
        """Give a write to the relay."""
        assert self.process is not None
        self.stories[story.sequence] = self.writes[story.write] = story
        answered = self.process.relay.submit(story.write, story.consistency)
        answered.addCallback(self._told, story, more)
        answered.addErrback(self._odd)

    def _odd(self, failure: Failure) -> None:
        self.broken(failure.getTraceback())

    def _told(self, reply: Reply, story: QueueStory, more: int) -> None:
        self.note(f"write {story.sequence} is answered {reply.status} {reply.body.decode().strip()}")
        if story.gone:
            self.broken(f"write {story.sequence} was answered by a process that is gone")
        story.answers.append(reply)
        if story.parts:
            self._check_answer(story, reply)
        elif reply != TAKEN:
            self.broken(f"write {story.sequence} is for nobody, and was answered {reply.status}")
        if more:
            self.submit(more - 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], World))
