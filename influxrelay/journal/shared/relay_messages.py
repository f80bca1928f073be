"""What relays tell each other about writes: what became of them at a backend, and that they are kept.

These messages are not stored. One that is lost costs a client its answer, but never a write.

Outcomes are sent as a version byte, the size of a table (4 bytes), the table as JSON, and for each write its number
(8 bytes) and its line in the table (2). Numbers of writes that are kept follow the version byte and the name of the
origin, which ends with a zero byte. Integers are little-endian.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any

from twisted.logger import Logger

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.journal.shared.interface import Engine, Watch

VERSION = 1
MOST = 4096  # outcomes in one message
_KEPT_WITHIN = 0.02  # seconds for which numbers of kept writes are gathered: nobody waits for them
_TABLE = struct.Struct("<BI")
_OUTCOME = struct.Struct("<QH")
Result = Reply | BackendFailure
Outcome = tuple[int, str, Result]
"""A write's number, a backend's name, and what it said."""


class RelayMessages:
    """Sends and takes such messages; outcomes of a turn travel together, and what is kept within a moment.

    :param relay: the own name in the group.
    :param is_alone: whether no other relay delivers to anything.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        engine: Engine,
        relay: str,
        *,
        on_outcome: Callable[[int, str, Result], object],
        on_kept: Callable[[tuple[int, ...]], object],
        is_alone: Callable[[], bool],
    ) -> None:
        self._reactor = reactor
        self._engine = engine
        self._relay = relay
        self._on_outcome = on_outcome
        self._on_kept = on_kept
        self._is_alone = is_alone
        self._outcomes: dict[str, list[Outcome]] = {}
        self._kept: list[int] = []
        self._will_flush = self._will_tell_kept = False
        self._watches: list[Watch] = []

    async def open(self) -> None:
        """Take what others send."""
        self._watches = [
            self._engine.subscribe(self._subject(self._relay), partial(self._came, self._outcomes_came)),
            self._engine.subscribe(f"{self._engine.name}.decided", partial(self._came, self._kept_came)),
        ]
        for each in self._watches:
            await each.in_sync

    def close(self) -> None:
        """Send what waits, and take nothing more."""
        self._flush()
        self._tell_kept()
        for each in self._watches:
            each.stop()

    def _subject(self, relay: str) -> str:
        return f"{self._engine.name}.outcome.{relay}"

    def outcome(self, number: int, origin: str, backend: str, result: Result) -> None:
        """Tell a write's origin what became of it."""
        self._outcomes.setdefault(origin, []).append((number, backend, result))
        self._flush_soon()

    def kept(self, numbers: Iterable[int]) -> None:
        """Tell all others that own writes are kept, if one of them delivers."""
        self._kept += numbers
        if not self._will_tell_kept:
            self._will_tell_kept = True
            self._reactor.callLater(_KEPT_WITHIN, self._tell_kept)

    def _flush_soon(self) -> None:
        if not self._will_flush:
            self._will_flush = True
            self._reactor.callLater(0.0, self._flush)

    def _flush(self) -> None:
        self._will_flush = False
        outcomes, self._outcomes = self._outcomes, {}
        for origin, some in outcomes.items():
            for first in range(0, len(some), MOST):
                self._engine.send(self._subject(origin), encode_outcomes(some[first : first + MOST]))

    def _tell_kept(self) -> None:
        self._will_tell_kept = False
        kept, self._kept = self._kept, []
        if self._is_alone():
            return
        for first in range(0, len(kept), MOST):
            self._engine.send(f"{self._engine.name}.decided", encode_kept(self._relay, kept[first : first + MOST]))

    def _came(self, take: Callable[[bytes], object], payload: bytes) -> None:
        try:
            take(payload)
        except ValueError as error:
            self._log.error("{place}: a message of another relay: {error}", place=self._engine.place, error=error)

    def _outcomes_came(self, payload: bytes) -> None:
        for each in decode_outcomes(payload):
            self._on_outcome(*each)

    def _kept_came(self, payload: bytes) -> None:
        relay, numbers = decode_kept(payload)
        if relay != self._relay:
            self._on_kept(numbers)


def encode_outcomes(outcomes: Iterable[Outcome]) -> bytes:
    """Return outcomes as bytes."""
    lines: dict[Hashable, int] = {}
    table: list[Any] = []
    packed: list[bytes] = []
    for number, backend, result in outcomes:
        key = backend, result if isinstance(result, Reply) else (result.reason, result.detail, result.reply)
        line = lines.get(key)
        if line is None:
            line = lines[key] = len(table)
            table.append([backend, *_show(result)])
        packed.append(_OUTCOME.pack(number, line))
    text = json.dumps(table, separators=(",", ":")).encode()
    return b"".join((_TABLE.pack(VERSION, len(text)), text, *packed))


def decode_outcomes(payload: bytes) -> list[Outcome]:
    """Return outcomes from bytes.

    :raises ValueError: they make no sense.
    """
    try:
        version, size = _TABLE.unpack_from(payload)
        if version != VERSION:
            raise ValueError(f"version {version} is not known")
        begin = _TABLE.size + size
        table = [(line[0], _read(*line[1:])) for line in json.loads(payload[_TABLE.size : begin])]
        return [(number, *table[line]) for number, line in _OUTCOME.iter_unpack(payload[begin:])]
    except (struct.error, TypeError, LookupError) as error:
        raise ValueError(f"not outcomes: {error}") from error


def _show(result: Result) -> tuple[Any, ...]:
    if isinstance(result, Reply):
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in result.headers]
        return "", "", [result.status, headers, b64encode(result.body).decode(), result.complete, result.held]
    reply = result.reply
    return result.reason, result.detail, None if reply is None else _show(reply)[2]


def _read(reason: str, detail: str, reply: list[Any] | None) -> Result:
    answer: Reply | None = None
    if reply is not None:
        status, headers, body, complete, held = reply
        pairs = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
        answer = Reply(status, pairs, b64decode(body), complete, held)
    return answer if answer is not None and not reason else BackendFailure(reason, detail, answer)


def encode_kept(relay: str, numbers: Iterable[int]) -> bytes:
    """Return numbers of writes that are kept as bytes."""
    numbers = tuple(numbers)
    return bytes([VERSION]) + relay.encode() + b"\0" + struct.pack(f"<{len(numbers)}Q", *numbers)


def decode_kept(payload: bytes) -> tuple[str, tuple[int, ...]]:
    """Return who says that writes are kept, and their numbers.

    :raises ValueError: that makes no sense.
    """
    if payload[:1] != bytes([VERSION]):
        raise ValueError(f"version {payload[:1]!r} is not known")
    relay, _, numbers = payload[1:].partition(b"\0")
    try:
        return relay.decode(), struct.unpack(f"<{len(numbers) // 8}Q", numbers)
    except struct.error as error:
        raise ValueError(f"not numbers: {error}") from error
