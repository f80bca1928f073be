"""Questions to JetStream, repeated until they are answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from influxrelay.core.errors import JournalError
from influxrelay.journal.shared.connection import Connection, NoAnswer
from influxrelay.journal.shared.interface import Conflict, Full

ATTEMPT = 2.0  # seconds; an election takes longer, but a message that was lost is not waited for in vain
_LEAVE_AFTER = 5.0  # seconds without an answer; the server may be cut off from the others
_PAUSE = 0.2  # seconds until a question is repeated for which nobody was responsible

CONFLICT = (10071, 10164)  # error codes of nats-server's server/errors.json: another last sequence than was expected
STREAM_NOT_FOUND = 10059
NO_MESSAGE = (10037, 10043, 10057)
NO_STORAGE = 10047
_STORE_FAILED = 10077
_AGAIN = (
    10006,  # and the next three: the servers are looking for a leader
    10007,
    10009,
    10041,
    10118,  # the servers that have the stream are not there
    10119,  # the same of a consumer
    10158,  # the same message, from an attempt before, is waiting for the other servers
    _STORE_FAILED,
)


class ApiError(JournalError):
    """JetStream refuses something.

    :ivar code: as in HTTP.
    :ivar err_code: of nats-server's ``server/errors.json``.
    """

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.err_code = err_code


class Api:
    """Asks JetStream.

    :param timeout: seconds after which a question fails that is not answered.
    :ivar trouble: why nothing can be stored; empty if all is well as far as is known.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.connection = connection
        self.timeout = timeout
        self._failing = ""

    @property
    def trouble(self) -> str:
        """What is wrong; empty if all is well as far as is known."""
        return self.connection.trouble or self._failing

    async def ask(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        parse: Callable[[Any], Any],
        of_leader: bool = True,
        seconds: float = 0.0,
    ) -> Any:
        """Ask until there is an answer.

        :param parse: makes the result of an answer; raises :class:`NoAnswer` for one that is none.
        :param of_leader: whether only the leader of a quorum can answer.
        :raises JournalError: it is refused, or the time is up.
        """
        loop = self.connection.loop
        begin = loop.time()
        end = begin + (seconds or self.timeout)
        leave = begin + _LEAVE_AFTER
        why = "no answer"
        while (left := end - loop.time()) > 0:
            try:
                if self.connection.trouble:
                    why = self.connection.trouble
                    await asyncio.wait_for(self.connection.until_connected(), left)
                    leave = loop.time() + _LEAVE_AFTER
                message = await self.connection.request(subject, payload, headers, seconds=min(ATTEMPT, left))
                result = parse(message)
            except TimeoutError:
                break
            except NoAnswer as error:
                why = str(error)
                if loop.time() > leave:
                    self.connection.leave_server()
                    leave = loop.time() + _LEAVE_AFTER
                await asyncio.sleep(min(_PAUSE, max(0.0, end - loop.time())))
            else:
                if of_leader:
                    self._failing = ""
                return result
        if of_leader:
            self._failing = why
        raise JournalError(f"{why} for {seconds or self.timeout:g} s")

    async def call(self, what: str, body: Mapping[str, Any] | None = None, *, seconds: float = 0.0) -> dict[str, Any]:
        """Ask JetStream's API.

        :raises ApiError: it is refused.
        :raises JournalError: there is no answer.
        """
        payload = json.dumps(body).encode() if body is not None else b""
        result: dict[str, Any] = await self.ask(f"$JS.API.{what}", payload, parse=answer_of, seconds=seconds)
        return result


def answer_of(message: Any) -> dict[str, Any]:
    """Return the JSON of an answer.

    :raises NoAnswer: the servers cannot say at the moment.
    :raises ApiError: it is an error; a :class:`Conflict` or :class:`Full` if it is one of those.
    """
    try:
        answer: dict[str, Any] = json.loads(message.data)
    except ValueError:
        raise NoAnswer(f"an answer that is no JSON: {message.data[:100]!r}") from None
    if error := answer.get("error"):
        code, err_code, text = error.get("code", 0), error.get("err_code", 0), error.get("description", "")
        if err_code in CONFLICT:
            raise Conflict(text)
        if err_code == _STORE_FAILED and "maximum" in text:
            raise Full(text)
        if code in (503, 408) or err_code in _AGAIN:
            raise NoAnswer(text)
        raise ApiError(code, err_code, text)
    return answer
