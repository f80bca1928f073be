"""The contract, checked in schedules of the simulation of relays with queues."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply
from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.responses import is_not_ready
from influxrelay.journal.ledger import Ledger
from influxrelay.journal.records import Drop
from influxrelay.journal.store import Store
from tests.simulation.disk import TIMEOUT, SimulatedWriter
from tests.simulation.queue_process import Process
from tests.simulation.queue_server import EPOCH, QueueSchedule, QueueStory, Server
from tests.simulation.schedule import EPSILON, sequence_of


def _is_refusal(outcome: Reply | BackendFailure) -> bool:
    """Tell whether a backend has answered 4xx, to this write or to those before it."""
    reply = outcome if isinstance(outcome, Reply) else outcome.reply
    return reply is not None and 400 <= reply.status < 500 and reply.status not in (408, 425, 429)


def _refused(ledger: Ledger) -> set[tuple[str, int]]:
    """Return the dead letters that backends have refused: a lost change is one too, and is counted as lost."""
    letters = ledger.letters(0, 1_000_000)
    return {(each.backend, sequence_of(each.write.body)) for each in letters if each.status}


def _covers(drop: Drop, story: QueueStory) -> bool:
    return drop.first - EPSILON <= EPOCH + story.submitted <= drop.last + EPSILON


class CheckedSchedule(QueueSchedule):
    """A schedule, and what has to hold in it."""

    process: Process | None = None

    @staticmethod
    def _collect(backlog: Backlog, server: Server) -> None:
        if not backlog.outlives:
            server.drops += backlog.losses()
            server.letters |= {sequence_of(letter.write.body) for letter in backlog.dead_letters()}

    def _check_answer(self, story: QueueStory, reply: Reply) -> None:  # noqa: C901 (one case for each answer)
        """Check an answer in the moment in which the client gets it."""
        outcomes = list(story.outcomes.values())
        servers = [self.servers[number] for number in story.parts]
        having = sum(server.has(story) for server in servers)
        needed = {"quorum": len(servers) // 2 + 1, "all": len(servers)}.get(story.consistency, 1)
        name = f"write {story.sequence} ({story.consistency}) was answered {reply.status}"
        waited = self.clock.seconds() - story.submitted
        limit = 2 * max(server.timeout for server in servers)
        if self.on_disk:
            limit += 4 * self.commit_delay + 2 * TIMEOUT
        if waited > limit + EPSILON:
            self.broken(f"{name} after {waited:g} s, not {limit:g}")
        if self.on_disk and not (story.committed or story.unjournaled):
            self.broken(f"{name} before its commit")
        if reply.status < 300:
            self._check_taken(story, name, having, needed)
        elif b"unable to journal" in reply.body:
            if not (story.unjournaled and self.refuse_unjournaled):
                self.broken(f"{name} although it is in the journal")
        elif story.consistency in ("quorum", "all"):
            failed = [each for each in outcomes if not isinstance(each, Reply) or each.status >= 300]
            decisive = failed[: len(servers) - needed + 1]  # others may have come while the journal was at it
            if len(failed) <= len(servers) - needed:
                self.broken(f"{name} when {len(failed)} had failed")
            if all(map(_is_refusal, decisive)) != (reply.status < 500):
                self.broken(f"{name} after the failures {decisive}")
        elif reply.status < 500 and reply.status not in (408, 425, 429):
            if reply not in [each for answers in story.words.values() for each in answers] and not is_not_ready(reply):
                self.broken(f"{name}, which no backend said of it alone")
        elif len(outcomes) < len(servers):
            self.broken(f"{name} before all backends had failed")

    def _check_taken(self, story: QueueStory, name: str, having: int, needed: int) -> None:
        if self.on_disk and self.refuse_unjournaled and not story.committed:
            self.broken(f"{name} and is not in the journal")
        if having >= needed:
            return
        failures = [each for each in story.outcomes.values() if isinstance(each, BackendFailure)]
        queued = all(each.reason == "not ready" or "dropped from" in each.detail for each in failures)
        safe = story.committed if self.on_disk else queued
        if story.consistency != "any" or not safe:
            self.broken(f"{name}, and {having} backends have it")

    def _must(self, server: Server) -> list[QueueStory]:
        """Return the writes that a backend must get."""
        return [
            story
            for story in self.stories.values()
            if story.taken and server.number in story.parts and server.number not in story.excused
        ]

    def _check_file(self) -> None:
        """Check that the journal's files, as a process has left them, hold all that is needed."""
        store = Store(self.directory, now=self.now())
        try:
            ledger = store.ledger
            log: dict[int, tuple[int, Destination]] = {}
            for where in ledger.last_numbers():
                page = store.read(where, 0, sys.maxsize, [], {})
                if page.damaged or page.upto is not None:
                    self.broken(f"of the journal {page.damaged} are damaged")
                log.update((sequence_of(each.write.body), (each.seq, where)) for each in page.records)
            names = {each.location: each.name for each in store.findings.backends}
            ids = {each.name: each.id for each in store.findings.backends}
            floors = store.findings.floors
            cursors = {each: ledger.cursors(each) for each in floors}
            letters = _refused(ledger)
            found = {each: name for name, each in ids.items()}
            drops = [Drop(found[each.backend], *attrs.astuple(each)[1:]) for each in ledger.losses()]
        finally:
            store.close()
        for sequence in log:
            story = self.stories[sequence]
            if story.refused and not story.unstruck:
                self.broken(f"write {sequence} was answered {story.answers[0].status} and is in the journal")
        for server in self.outputs.values():
            lost = []
            name = names.get(f"http://{server.number}", "")
            for story in self._must(server):
                if server.has(story) or (name, story.sequence) in letters:
                    continue
                seq, where = log.get(story.sequence, (0, story.write.destination))
                backend = ids.get(name, 0)
                if seq <= cursors.get(backend, {}).get(where, floors.get(backend, sys.maxsize)):
                    lost.append(story)
            self._check_lost(name, lost, [drop for drop in drops if drop.backend == name])

    def _check_lost(self, name: str, lost: list[QueueStory], drops: list[Drop]) -> None:
        """Check that what is lost for a backend is counted, and in a range of time."""
        for story in lost:
            if not any(_covers(drop, story) for drop in drops):
                self.broken(f"write {story.sequence} was taken, and is lost at {name}; drops: {drops}")
        if len(lost) > sum(drop.writes for drop in drops):
            numbers = [story.sequence for story in lost]
            self.broken(f"the writes {numbers} are lost at {name}; drops: {drops}")

    def _check(self) -> None:
        """Check what holds at the end of a schedule."""
        process = self.process
        assert process is not None
        for story in self.stories.values():
            if len(story.answers) != (0 if story.gone else 1):
                self.broken(f"the client of write {story.sequence} got {len(story.answers)} answers")
        drops: list[Drop] = []
        letters: set[tuple[str, int]] = set()
        if process.writer is not None:
            drops, letters = self._check_rest(process.writer)
        for sender in process.senders:
            server = self.servers[sender.number]
            self._collect(sender.backlog, server)
            drops += [attrs.evolve(drop, backend=sender.name) for drop in server.drops]
            letters |= {(sender.name, sequence) for sequence in server.letters}
            self.check_sender_is_idle(sender)
        for name, server in self.outputs.items():
            self._check_server(
                name,
                server,
                [drop for drop in drops if drop.backend == name],
                {sequence for backend, sequence in letters if backend == name},
            )
        self.raise_problem()

    def _check_rest(self, writer: SimulatedWriter) -> tuple[list[Drop], set[tuple[str, int]]]:
        """Check that a journal keeps nothing more, and return what it has counted, and its dead letters."""
        house, ledger = writer._house, writer._store.ledger
        drops = [drop for each in house.registry.backends for drop in house.accounts.losses(each.id, each.name)]
        letters = _refused(ledger)
        left = [each.name for each in Path(self.directory).glob("*.log")]
        if left or house.cursors.behind:
            self.broken(f"the log has something left: {left}, {house.cursors.lowest()}")
        if writer.trouble or not writer._tail.is_idle:
            self.broken(f"the journal is not at rest: {writer.trouble}")
        return drops, letters

    def _check_server(self, name: str, server: Server, drops: list[Drop], letters: set[int]) -> None:
        must = self._must(server)
        there = [story for story in must if server.has(story)]
        self._check_lost(
            name, [story for story in must if not server.has(story) and story.sequence not in letters], drops
        )
        for sequence in letters:
            story = self.stories[sequence]
            if story.refused and not story.unstruck:
                self.broken(f"write {sequence} was answered {story.answers[0].status}, and is a dead letter of {name}")
            if not story.poisoned:
                self.broken(f"write {sequence} is a dead letter of {name}, which never refused it")
        if self.max_in_flight == 1:
            self._check_order(name, server, there, drops)

    def _check_order(self, name: str, server: Server, there: list[QueueStory], drops: list[Drop]) -> None:
        """Check that no write has overtaken an older one."""
        wanted = {story.sequence for story in there}
        for what in ("arrived", "applied"):
            for order in getattr(server, what).values():
                first = [sequence for sequence in order if sequence in wanted]
                if first != sorted(first):
                    self.broken(f"at {name} writes of one destination {what} in the order {first}")
        self._check_points(name, server, there, drops)

    def _check_points(self, name: str, server: Server, there: list[QueueStory], drops: list[Drop]) -> None:
        """Check that no newer value has been overwritten."""
        newest: dict[bytes, int] = {}
        for story in there:
            if any(_covers(drop, story) for drop in drops):
                continue  # an older one may have been sent again, and then this one was dropped
            for line in story.parts[server.number].split(b"\n"):
                if line:
                    newest[line.partition(b" ")[0]] = story.sequence
        for point, sequence in newest.items():
            if server.points[point] < sequence:
                self.broken(f"at {name} write {server.points[point]} overwrote {point!r} of {sequence}")
