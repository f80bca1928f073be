"""A seeded simulation of remote writes with a queue: a Prometheus that fails, forgets to answer, and rolls back.

``python -m tests.simulation.remote_write SEED`` runs one schedule, ``--count N`` runs N, and a failing seed is printed.
The real sender with its backlog, in memory or in a journal, writes to a model of Prometheus: it takes a body as a whole
or not at all, and of each series only samples that are not older than what it has. All writes are acknowledged, and
each series' samples come in order. So each of them has to be there in the end, whatever was sent twice, but for those
that somebody else has overtaken with a newer one.
"""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.backlog import Backlog, MemoryBacklog
from influxrelay.delivery.fate import Fate
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from influxrelay.journal.records import Record
from influxrelay.remotewrite.exposition import lines
from influxrelay.remotewrite.snappy import joined, pack
from testing.backends import OK, FakeBackend, Post
from testing.journals import MemoryJournal
from testing.remote_write import Timeseries, version_1
from tests.simulation.schedule import Violation, main

LATE = Reply(400, (), b"out of order sample\n")
BUSY = (Reply(503, (), b"starting"), Reply(500, (), b"no"), Reply(429, ((b"Retry-After", b"2"),)))
TENANTS = (b"a", b"b")
SERIES = ("x", "y", "z")
MAX_STEPS = 5_000
Key = tuple[bytes, str]
"""A series, by tenant and name."""


class Prometheus(FakeBackend):
    """What has been taken.

    :ivar samples: the times of the samples of each series, in the order in which they came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.samples: dict[Key, list[int]] = defaultdict(list)
        self.refusals = 0

    def post(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        """Take a request, whose bodies are joined as they are for a real server."""
        self.posts = self.pending
        self.posts.append(Post(write, joined(body_parts) if len(body_parts) > 1 else body_parts[0]))
        return self.posts[-1].result

    def store(self, post: Post) -> Reply:
        """Store all samples of a request, or none of them."""
        tenant, new = post.write.destination.precision[-1:], defaultdict[Key, list[int]](list)
        for line in lines(post.body, 1):
            name, _, time = line.split(" ")
            key = (tenant, name)
            head = (new[key] or self.samples[key] or [0])[-1]
            if int(time) < head:
                self.refusals += 1
                return LATE
            if int(time) > head:  # else it is there already, with the same value
                new[key].append(int(time))
        for key, times in new.items():
            self.samples[key] += times
        return OK


class World:
    """One schedule.

    :param trace: is told what happens.
    """

    def __init__(self, seed: int, trace: Callable[[str], object] = lambda _: None) -> None:
        self._rng = random.Random(f"remote write {seed}")
        self._trace = trace
        self.clock = Clock()
        self.backend = Prometheus()
        self.journal: Any = MemoryJournal() if self._rng.random() < 0.5 else None
        self.restarts = self.lost_answers = 0
        self._numbers = 0
        self._times: dict[Key, int] = defaultdict(int)
        self._overtaken: dict[Key, set[int]] = defaultdict(set)
        self._start()

    def _start(self) -> None:
        rng, journal = self._rng, self.journal
        backlog: Backlog = MemoryBacklog() if journal is None else JournalBacklog(journal, self.clock)
        settings = SenderSettings("fake", "test", max_batch=rng.choice((100, 1000, 10**6)), buffer=10**8, max_delay=1.0)
        self.sender = Sender(self.backend, self.clock, settings, backlog, jitter=rng.random)
        if journal is not None:
            backlog.resume(journal.positions(), journal.last_number, journal.last_number)

    # -- what may happen

    def submit(self) -> None:
        """Write some samples of some series."""
        rng, tenant = self._rng, self._rng.choice(TENANTS)
        series = []
        for name in rng.sample(SERIES, rng.randint(1, len(SERIES))):
            key = (tenant, name)
            first, self._times[key] = self._times[key] + 1, self._times[key] + rng.randint(1, 8)
            series.append(Timeseries({"__name__": name}, [(1.0, time) for time in range(first, self._times[key] + 1)]))
        where = Destination(b"db", b"", b"remote write\nX-Scope-OrgID: " + tenant, (b"", b"", b""))
        write = Write(where, b"db=db", b"", pack(version_1(series)))
        self._numbers += 1
        number = self._numbers if self.journal is None else self.journal.next_number()
        if self.journal is not None:
            self.journal.append(Record(number, self.clock.seconds(), write))
        fate = Fate(number, 0.0, self.clock.seconds(), None, None, lambda _: None)
        fate.decide(kept=True)
        self._trace(f"write {number} of {tenant!r}: {list(lines(write.body, 1))}")
        self.sender.submit(write, fate)

    def answer(self) -> None:
        """Let the backend do something with a request."""
        if not self.backend.pending:
            return
        post = self._rng.choice(self.backend.pending)
        what = self._rng.random()
        if what < 0.6:
            reply = self.backend.store(post)
            self._trace(f"{list(lines(post.body, 1))} of {post.write.destination.precision!r}: {reply.status}")
            post.answer(reply)
        elif what < 0.8:
            self.lost_answers += 1
            self._trace(f"{list(lines(post.body, 1))}: {self.backend.store(post).status}, and the answer is lost")
            post.fail("reset")
        elif what < 0.9:
            post.answer(self._rng.choice(BUSY))
        else:
            post.fail("refused")

    def overtake(self) -> None:
        """Let somebody else write one of the samples that are on their way, so that older ones are late."""
        key = (self._rng.choice(TENANTS), self._rng.choice(SERIES))
        samples = self.backend.samples[key]
        head, last = (samples or [0])[-1], self._times[key]
        if last > head:
            time = self._rng.randint(head + 1, last)
            self._trace(f"{key} is written up to {time} by somebody else")
            samples.append(time)
            self._overtaken[key].update(range(head + 1, time))

    def restart(self) -> None:
        """Kill the process, which has a journal, and start another one."""
        if self.journal is None:
            return
        self._trace("kill")
        self.restarts += 1
        for post in self.backend.pending:
            if self._rng.random() < 0.5:
                self.backend.store(post)
        self.sender.close()
        self.backend.posts = []  # nobody waits for these any more
        self._start()

    def run(self) -> None:
        """Let things happen, then let all be well, and compare.

        :raises Violation: a sample is missing, or anything was given up.
        """
        events = (*[self.submit] * 8, *[self.answer] * 12, self.overtake, self.restart)
        for _ in range(self._rng.randint(20, 150)):
            self._rng.choice(events)()
            self.clock.advance(self._rng.choice((0.0, 0.01, 0.3)))
        for _ in range(MAX_STEPS):
            for post in self.backend.pending:
                post.answer(self.backend.store(post))
            if self.sender.is_idle:
                break
            self.clock.advance(0.05)
        else:
            raise Violation("it does not end")
        for key, last in self._times.items():
            late = self._overtaken[key]
            if self.backend.samples[key] != [time for time in range(1, last + 1) if time not in late]:
                raise Violation(f"of {key} it has {self.backend.samples[key]}, and not all up to {last} but {late}")
        losses, letters = self.sender.backlog.losses(), self.sender.backlog.dead_letters()
        if losses or letters or (self.journal is not None and (self.journal.letters or self.journal.left())):
            raise Violation(f"something is left: {losses}, {letters}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], World))
