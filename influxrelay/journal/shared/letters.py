"""The dead letters of the group: a stream of their own.

A letter is a message, or several if its body is large; its id is the sequence of the last one. The header is a line of
words, and the payload that of a log with one write, or a piece of it::

    1 letter GROUP PIECE PIECES JSON        only the last piece has the JSON, which tells of backend, status and message
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.write import Write
from influxrelay.journal.records import DeadLetter, Drop, Record
from influxrelay.journal.shared.committer import MESSAGE
from influxrelay.journal.shared.frames import HEADER, Batch, Destinations, cut, encode
from influxrelay.journal.shared.interface import Full, Message, Stream, Watch
from influxrelay.journal.shared.state import token

VERSION = 1
TRY_AGAIN = 1.0  # seconds until a letter that could not be stored is stored again
MOST_TEXT = 4096  # characters of what a backend has said
AT_ONCE = 64  # letters that are read together
_MESSAGE_BYTES = 200  # that a message takes beside its payload and its header


@attrs.frozen
class Envelope:
    """A letter without its write.

    :ivar seqs: of its messages; the last is its id.
    :ivar stored: about the bytes that these take; ``size`` those of the write's body.
    """

    seqs: tuple[int, ...]
    stored: int
    backend: str
    time: float
    status: int
    message: str
    size: int


class Letters:
    """Stores letters, and knows which there are.

    :ivar max_bytes: that letters may take; the stream refuses more. 0 for no limit.
    """

    _log = Logger()

    def __init__(self, reactor: Any, stream: Stream, relay: str, destinations: Destinations) -> None:
        self.max_bytes = 0
        self._count: Callable[[Drop], object] = lambda drop: None  # noqa: ARG005 (nobody counts yet)
        self._reactor = reactor
        self._stream = stream
        self._relay = relay
        self._destinations = destinations
        self._stored = 0
        self._pending: dict[Deferred[None], Any] = {}  # those that are to be stored again, with their timers
        self._envelopes: dict[int, Envelope] = {}
        self._open: dict[str, dict[int, int]] = {}  # messages of letters whose last one has not come, with their bytes
        self._messages = 0  # that were seen, and not deleted here
        self._last = 0
        self._watch: Watch | None = None
        self._making_room = DeferredLock()

    def count_with(self, count: Callable[[Drop], object]) -> None:
        """Have letters that make way counted by this."""
        self._count = count

    # -- which there are

    async def open(self) -> None:
        """Find out which there are."""
        if self._watch is not None:
            self._watch.stop()
        self._envelopes.clear()
        self._open.clear()
        self._messages = 0
        self._watch = self._stream.follow(0, self._came, headers_only=True)
        await self._watch.in_sync

    def close(self) -> None:
        """Store nothing more."""
        if self._watch is not None:
            self._watch.stop()
        for done, timer in list(self._pending.items()):
            if timer is not None and timer.active():
                timer.cancel()
            self._give_up(done)

    def _give_up(self, done: Deferred[None]) -> None:
        if self._pending.pop(done, self) is not self:
            done.errback(Failure(JournalError("the dead letter could not be stored")))

    def _came(self, message: Message) -> None:
        self._messages += 1
        self._last = message.seq
        try:
            self._take(message.seq, message.size, message.headers.get(HEADER, ""))
        except (ValueError, TypeError) as error:
            self._log.error("{stream}: message {seq}: {error}", stream=self._stream.name, seq=message.seq, error=error)

    def _take(self, seq: int, size: int, header: str) -> None:
        version, kind, group, piece, pieces, text = f"{header} ".split(" ", 5)
        if (version, kind) != (str(VERSION), "letter"):
            raise ValueError(f"{version[:20]!r} {kind[:20]!r} is not known")
        sizes = self._open.setdefault(group, {})
        sizes[seq] = size + len(header) + _MESSAGE_BYTES
        if int(piece) == int(pieces) - 1:
            del self._open[group]
            self._envelopes[seq] = Envelope(tuple(sizes), sum(sizes.values()), *json.loads(text))

    async def sync(self) -> None:
        """Know of all letters that there are at this moment, at whichever relay they were stored or dropped."""
        state = await self._stream.state()
        if self._last < state.last_seq or self._messages != state.messages:
            await self.open()

    async def count(self) -> dict[str, int]:
        """Return how many letters each backend has, for those that have any."""
        await self.sync()
        counts: dict[str, int] = {}
        for each in self._envelopes.values():
            counts[each.backend] = counts.get(each.backend, 0) + 1
        return counts

    @property
    def size(self) -> int:
        """About the bytes that all letters take, as far as is known."""
        return sum(each.stored for each in self._envelopes.values())

    async def read(self, after: int, limit: int) -> list[DeadLetter]:
        """Return the letters with a higher id, the oldest first."""
        await self.sync()
        wanted = [each for seq, each in sorted(self._envelopes.items()) if seq > after][:limit]
        letters: list[DeadLetter] = []
        for first in range(0, len(wanted), AT_ONCE):
            some = wanted[first : first + AT_ONCE]
            messages = await self._stream.get(seq for each in some for seq in each.seqs)
            payloads = {each.seq: each.payload for each in messages}
            for each in some:
                if any(seq not in payloads for seq in each.seqs):
                    continue  # it was dropped in between
                try:
                    letters.append(self._letter(each, b"".join(payloads[seq] for seq in each.seqs)))
                except ValueError as error:
                    self._log.error("{stream}: {seq}: {error}", stream=self._stream.name, seq=each.seqs, error=error)
        return letters

    def _letter(self, envelope: Envelope, payload: bytes) -> DeadLetter:
        (record,) = Batch(envelope.seqs[-1], payload, self._destinations).records()
        return DeadLetter(
            envelope.seqs[-1], envelope.time, envelope.backend, envelope.status, envelope.message, record.write
        )

    # -- more of them, and fewer

    def bury(self, backend: str, when: float, write: Write, status: int, message: str) -> Deferred[None]:
        """Store a letter; fires when it is, however long that takes, and fails if this relay stops before.

        One for which there would be no room at all is counted as lost.
        """
        payload, _ = encode([Record(0, when, write)])
        self._stored += 1
        text = json.dumps([backend, when, status, message[:MOST_TEXT], len(write.body)])
        done: Deferred[None] = Deferred()
        self._pending[done] = None
        if self.max_bytes and len(payload) + len(text) + _MESSAGE_BYTES > self.max_bytes:
            self._count(Drop(backend, "full", 1, len(write.body), when, when))
            self._settle(done)
        else:
            self._try(f"{self._relay}.L{self._stored}", token(backend), payload, text, done)
        return done

    def _settle(self, done: Deferred[None]) -> None:
        if self._pending.pop(done, self) is not self:
            done.callback(None)

    def _try(self, group: str, subject: str, payload: bytes, text: str, done: Deferred[None]) -> None:
        def failed(failure: Failure) -> None:
            if not failure.check(JournalError):
                self._log.failure("{stream}", failure, stream=self._stream.name)
            elif failure.check(Full):
                room = Deferred.fromCoroutine(self.make_room(len(payload) + len(text) + _MESSAGE_BYTES))
                room.addErrback(lambda failure: failure.trap(JournalError) and None)
            if done in self._pending:
                again = partial(self._try, group, subject, payload, text, done)
                self._pending[done] = self._reactor.callLater(TRY_AGAIN, again)

        published = Deferred.fromCoroutine(self._publish(group, f"{self._stream.name}.{subject}", payload, text))
        published.addCallbacks(lambda _: self._settle(done), failed)

    async def _publish(self, group: str, subject: str, payload: bytes, text: str) -> None:
        pieces = cut(payload, MESSAGE)
        for index, piece in enumerate(pieces):
            last = text if index == len(pieces) - 1 else ""
            headers = {HEADER: f"{VERSION} letter {group} {index} {len(pieces)} {last}".rstrip()}
            await self._stream.publish(subject, piece, headers, msg_id=f"{group}.{index}")

    async def drop(self, ids: Iterable[int]) -> int:
        """Remove letters, and return how many there were."""
        await self.sync()
        dropped = [self._envelopes[each] for each in set(ids) if each in self._envelopes]
        gone = await self._stream.delete([seq for each in dropped for seq in each.seqs]) if dropped else 0
        self._messages -= gone
        for each in dropped:
            self._envelopes.pop(each.seqs[-1], None)
        return min(gone, len(dropped))  # less if another relay was first

    async def make_room(self, size: int) -> None:
        """Have room for so many bytes more; the oldest letters make way, and are counted as lost."""
        if not self.max_bytes or self.size + size <= self.max_bytes:
            return
        await self._making_room.acquire()
        try:
            await self.sync()
            while self._envelopes and self.size + size > self.max_bytes:
                oldest = self._envelopes[min(self._envelopes)]
                if await self.drop([oldest.seqs[-1]]):
                    self._count(Drop(oldest.backend, "full", 1, oldest.size, oldest.time, oldest.time))
        finally:
            self._making_room.release()
