"""A shared journal as a whole: relays take writes and deliver what is in the log, while everything fails.

``python -m tests.simulation.shared_log --count N`` runs N schedules, ``python -m tests.simulation.shared_log SEED``
shows one. Every backend gets the writes of a destination in the order of the log: it may get some again, but skips none
that is kept, and ends with the last. Nothing that was acknowledged is missing: the backend has it, or there is a dead
letter, or it was counted as lost, and that exactly once, however often its deliverers lose their leases.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.write import CHANGES, Destination, Write
from influxrelay.journal.interface import Key, Positions
from influxrelay.journal.records import Record
from influxrelay.journal.shared.frames import end_of
from influxrelay.journal.shared.state import BackendState
from testing.memory_store import EPOCH
from testing.shared_journals import Relay
from tests.simulation.group import BACKENDS, CALM, GroupWorld
from tests.simulation.schedule import DESTINATIONS, main

PLACES: Sequence[Destination] = (*DESTINATIONS, CHANGES)
T = TypeVar("T")
LARGE = 600_000  # bytes of a body that is in several messages


@attrs.define(eq=False)
class Story:
    """A write.

    :ivar fate: what becomes of it at one of the backends: it is ``taken``, ``refused`` or ``lost``.
    :ivar number: in the log, once its client was told that it is kept.
    :ivar is_struck: whether its client was, or will be, told that it is not.
    """

    body: bytes
    where: Destination
    fate: str
    number: int = 0
    is_struck: bool = False


class Backend:
    """A server.

    :ivar got: the bodies of each destination, in the order in which they came.
    :ivar refused: the bodies that are to be dead letters; ``lost`` those that are to be counted.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_up = True
        self.got: dict[Destination, list[bytes]] = {}
        self.refused: set[bytes] = set()
        self.lost: set[bytes] = set()


class Queue:
    """What a deliverer has for a destination of a backend.

    :ivar loaded: up to here everything is in ``waiting``, or passed.
    :ivar last: up to here there is something.
    """

    def __init__(self, passed: int, last: int) -> None:
        self.waiting: deque[Record] = deque()
        self.passed = self.loaded = passed
        self.last = last
        self.is_busy = False


class Delivery(Relay):
    """A relay that delivers to model backends: one write at a time for each destination."""

    world: World
    last = 0

    def gained(self, key: Key, positions: Positions, last_number: int) -> None:
        """Begin where the backend was."""
        super().gained(key, positions, last_number)
        self.world.note(f"{self.journal.relay} delivers to {key} from {[number for _, number in positions]}")
        queues = self.queues()[key] = {where: Queue(passed, last_number) for where, passed in positions}
        for where in list(queues):
            self.go_on(key, where)

    def queues(self) -> dict[Key, dict[Destination, Queue]]:
        """Return what waits, by backend."""
        found: dict[Key, dict[Destination, Queue]] = self.__dict__.setdefault("_queues", {})
        return found

    def lost(self, key: Key) -> None:
        """Forget everything."""
        super().lost(key)
        self.world.note(f"{self.journal.relay} has lost {key}")
        del self.queues()[key]

    def hand_out(self, records: Sequence[Record], origin: str) -> None:
        """Take what comes."""
        super().hand_out(records, origin)
        for record in records:
            if record.seq <= self.last:
                self.world.broken(f"{record.seq} was handed out behind {self.last} at {self.journal.relay}")
            self.last = record.seq
            self.world.know(record)
            for key, queues in self.queues().items():
                where = record.write.destination
                queue = queues.setdefault(where, Queue(record.seq - 1, record.seq - 1))
                if queue.loaded >= queue.last and len(queue.waiting) < 5:
                    queue.waiting.append(record)
                    queue.loaded = record.seq
                queue.last = record.seq
                self.go_on(key, where)

    def decided(self, numbers: Sequence[int], *, kept: bool) -> None:
        """Take out what is struck."""
        super().decided(numbers, kept=kept)
        for queues in self.queues().values() if not kept else ():
            for queue in queues.values():
                queue.waiting = deque(each for each in queue.waiting if each.seq not in numbers)

    def given_up(self, key: Key, upto: int) -> None:
        """Pass what the operator has dropped."""
        for where, queue in list(self.queues().get(key, {}).items()):
            queue.waiting = deque(each for each in queue.waiting if each.seq > upto)
            queue.loaded = max(queue.loaded, upto)
            queue.passed = max(queue.passed, min(upto, queue.last))
            self.go_on(key, where)

    def go_on(self, key: Key, where: Destination) -> None:
        """Read or send what is next."""
        queue = self.queues().get(key, {}).get(where)
        if queue is None or queue.is_busy:
            return
        if queue.waiting:
            queue.is_busy = True
            self.clock.callLater(self.world.rng.random() * 0.02, self.send, key, where, queue)
        elif queue.loaded < queue.last:
            queue.is_busy = True
            page = self.journal.read(where, queue.loaded, self.world.rng.choice((1, 50, 100_000)))
            page.addCallbacks(
                self.fill, self.not_read, callbackArgs=(key, where, queue), errbackArgs=(key, where, queue)
            )
            page.addErrback(self.world.odd)
        else:
            self.journal.advance(key, where, queue.last)

    def fill(self, page: tuple[list[Record], int], key: Key, where: Destination, queue: Queue) -> None:
        """Take a page."""
        queue.is_busy = False
        if self.queues().get(key, {}).get(where) is queue:
            records, upto = page
            queue.waiting.extend(each for each in records if each.seq > queue.loaded)
            queue.loaded = max(queue.loaded, upto)
            self.go_on(key, where)

    def not_read(self, failure: Failure, key: Key, where: Destination, queue: Queue) -> None:
        """Try again."""
        failure.trap(JournalError)
        queue.is_busy = False
        self.clock.callLater(0.5, self.go_on, key, where)

    def send(self, key: Key, where: Destination, queue: Queue) -> None:
        """Send what is next, if the lease is there at this moment."""
        queue.is_busy = False
        if self.queues().get(key, {}).get(where) is not queue or not queue.waiting:
            self.go_on(key, where)
            return
        if not self.journal.is_valid(key) or not self.world.backends[key].is_up:
            queue.is_busy = True
            self.clock.callLater(0.3, self.send, key, where, queue)
            return
        record = queue.waiting.popleft()
        self.world.deliver(key, record, self)
        queue.passed = record.seq
        self.journal.advance(key, where, queue.passed)
        self.go_on(key, where)


class World(GroupWorld):
    """One schedule."""

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(seed, trace)
        self.backends = {key: Backend(str(key)) for key in BACKENDS}
        self.stories: dict[bytes, Story] = {}
        self.numbers: dict[int, bytes] = {}
        self._rate = self.rng.choice((0.05, 0.3, 1.0))
        self._strikes = self.rng.choice((0.0, 0.1, 0.5))

    def make_relay(self, name: str) -> Relay:
        """Return one that delivers."""
        return Delivery(self.cluster, name, backends=BACKENDS, before=lambda relay: setattr(relay, "world", self))

    # -- clients

    def act(self) -> None:
        """Write something, and take something back; servers go down and come up."""
        self.write_and_fail(self.write, list(self.backends.values()), 0.01)

    def write(self, relay: Relay) -> None:
        """Write something."""
        rng = self.rng
        number = len(self.stories)
        body = b"%d %s\n" % (number, b"x" * (LARGE if rng.random() < 0.005 else rng.randrange(50)))
        story = self.stories[body] = Story(body, rng.choice(PLACES), rng.choice(("taken", "taken", "refused", "lost")))
        record = Record(0, EPOCH + self.clock.seconds(), Write(story.where, b"", b"", body))
        appended = relay.journal.append_shared(record)
        appended.addCallbacks(self.kept, self.not_kept, callbackArgs=(story, relay))
        appended.addErrback(self.odd)

    def kept(self, number: int, story: Story, relay: Relay) -> None:
        """Tell the client, or strike it."""
        story.number = number
        if story.fate == "taken" and self.rng.random() < self._strikes:
            story.is_struck = True
            relay.journal.strike(number).addErrback(lambda failure: failure.trap(JournalError) and None)
        else:
            relay.journal.decided([number])

    def not_kept(self, failure: Failure) -> None:
        """Tell the client that nobody knows."""
        failure.trap(JournalError)

    def odd(self, failure: Failure) -> None:
        """Note what should not be."""
        self.broken(failure.getTraceback())

    # -- backends

    def deliver(self, key: Any, record: Record, relay: Relay) -> None:
        """Take a write at a backend, or do not."""
        body, write = record.write.body, record.write
        self.know(record)
        self.note(f"backend {key} gets {body[:10]!r} {record.seq}")
        backend, fate = self.backends[key], self.stories[body].fate
        if fate == "taken" or key == "a":
            backend.got.setdefault(write.destination, []).append(body)
        elif fate == "refused":
            backend.refused.add(body)
            relay.journal.bury(key, record.time, write, 400, "no")
        else:
            backend.lost.add(body)
            relay.journal.count_loss(key, "full", record.time, len(body))

    def know(self, record: Record) -> None:
        """Check that a number means the same write everywhere."""
        if self.numbers.setdefault(record.seq, record.write.body) != record.write.body:
            self.broken(f"{record.seq} is {record.write.body[:10]!r} and {self.numbers[record.seq][:10]!r}")

    # -- the end

    def heal(self) -> None:
        """Let all be well."""
        super().heal()
        for backend in self.backends.values():
            backend.is_up = True

    def is_done(self) -> bool:
        """Wait until nothing waits."""
        if any(each.relay.engine.open for each in self.machines) or not all(map(self.delivered_by, BACKENDS)):
            return False
        states = [BackendState.decode(each.value) for each in self.cluster.values.entries.values() if each.value]
        return min(each.cursor for each in states) >= end_of(self.cluster.log.last)

    def check_end(self) -> None:
        """Check what the backends have."""
        order: dict[Destination, list[bytes]] = {where: [] for where in PLACES}
        for _, body in sorted(self.numbers.items()):
            order[self.stories[body].where].append(body)
        contents = self.result(lambda relay: relay.journal.contents())
        letters = self.result(lambda relay: relay.journal.dead_letters(0, 100_000))
        for key, backend in self.backends.items():
            has = backend.refused | backend.lost | {body for bodies in backend.got.values() for body in bodies}
            for story in self.stories.values():
                if story.number and not story.is_struck and story.body not in has:
                    self.broken(f"{story.body[:10]!r} {story.number} is missing at {key}")
            for where, bodies in backend.got.items():
                got = [body for body in bodies if not self.stories[body].is_struck]
                self._check_order(str(key), got, [body for body in order[where] if body in set(got)])
            if {each.write.body for each in letters if each.backend == key} != backend.refused:
                self.broken(f"there are other dead letters of {key} than there should be")
            lost = sum(each.writes for each in contents.drops if each.backend == key)
            if lost != len(backend.lost):
                self.broken(f"{len(backend.lost)} are lost at {key}, and {lost} are counted")

    def result(self, ask: Callable[[Relay], Deferred[T]]) -> T:
        """Ask some relay something."""
        relay = self.rng.choice([each.relay for each in self.machines if not each.is_leaving])
        answers: list[Any] = []
        ask(relay).addBoth(answers.append)
        while not answers and self.clock.seconds() < 3 * CALM:
            self.step(0.02)
        if not answers:
            raise self.broken("a question is not answered")
        if isinstance(answers[0], Failure):
            raise self.broken(str(answers[0].value))
        answer: T = answers[0]
        return answer

    def _check_order(self, name: str, got: list[bytes], order: list[bytes]) -> None:
        """Check that nothing is skipped, and that the last is last."""
        furthest = -1
        before = -1
        place = {body: index for index, body in enumerate(order)}
        for body in got:
            index = place[body]
            if index > furthest + 1:
                self.broken(f"backend {name} has got {body[:10]!r} too early")
            if index > before + 1:
                self.broken(f"backend {name} has got {body[:10]!r} again, and not what is before it")
            furthest, before = max(furthest, index), index
        if before != len(order) - 1:
            self.broken(f"backend {name} ends with {got[-1][:10]!r}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], World))
