"""One server that is asked for its contents: a statement at a time, over a connection that is kept."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import attrs

from influxrelay.core.errors import InfluxRelayError
from influxrelay.core.text import shortened
from influxrelay.transport.tls import ClientTLS

T = TypeVar("T")

_TRIES = 3
_PAUSE = 1.0  # seconds between two of them
_CHUNK = 10_000  # points of one piece of an answer
_RESTARTING = re.compile("engine is closed|shard is disabled|server closed")
_ZERO = re.compile(rb"[\[,]-0[\],]")


class Unanswered(InfluxRelayError):
    """A server does not answer, or not with a result; ``str()`` is one line for the operator."""


class Overflowed(Unanswered):
    """A sum is beyond what a float can be, and JSON has no word for it; the whole answer is lost."""


class TooSlow(Unanswered):
    """A server has not answered in the time that it was given."""


class TooLarge(Unanswered):
    """An answer is larger than was asked for."""


class NegativeZero(float):
    """The float -0, which InfluxDB tells from 0."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NegativeZero)

    def __ne__(self, other: object) -> bool:  # a float has one of its own
        return not isinstance(other, NegativeZero)

    def __hash__(self) -> int:
        return hash(-0.0)


@attrs.frozen
class Series:
    """A series of an answer, or a piece of one."""

    name: str
    tags: Mapping[str, str]
    columns: list[str]
    values: list[list[Any]]


@attrs.define
class Server:
    """A backend.

    :ivar url: for queries.
    :ivar headers: for each request.
    :ivar parameters: for each request: what stands in the query string of the output's location.
    :ivar timeout: seconds for each piece of an answer.
    :ivar tries: how often a statement is sent, a second apart, before the server counts as unanswering; and
        ``tries_later`` if these are more and it has answered before: it may be restarting.
    :ivar share: of the time that the server may be kept busy, above 0 and at most 1.
    """

    name: str
    url: str
    tls: ClientTLS
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    parameters: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    timeout: float = 600.0
    share: float = 1.0
    tries: int = _TRIES
    tries_later: int = 0
    sleep: Callable[[float], None] = time.sleep
    _connection: http.client.HTTPConnection | None = attrs.field(default=None, init=False)
    _has_answered: bool = attrs.field(default=False, init=False)

    def ask(self, statement: str) -> list[Series]:
        """Return the answer to a statement.

        :raises Unanswered: there is none.
        """
        return self._paced(statement, lambda body: list(self._series(body)))

    def ask_within(self, statement: str, patience: float, limit: int | None = None) -> list[Series]:
        """Return the answer to a statement if it begins within some seconds.

        :param limit: of its bytes; None for any.
        :raises TooSlow: it does not.
        :raises TooLarge: it has more bytes.
        :raises Unanswered: there is none.
        """
        return self._paced(statement, lambda body: list(self._series(body)), patience=patience, limit=limit)

    def fetch(self, statement: str, limit: int | None = None) -> bytes:
        """Return the answer to a statement as it came, whatever it says.

        :param limit: of its bytes; None for any.
        :raises TooLarge: it has more.
        :raises Unanswered: there is none.
        """
        return self._paced(statement, bytes, limit=limit)

    def _paced(
        self,
        statement: str,
        read: Callable[[bytes], T],
        *,
        patience: float | None = None,
        limit: int | None = None,
    ) -> T:
        began = time.monotonic()
        try:
            return self._answer(statement, read, patience, limit)
        finally:
            if self.share < 1:
                self.sleep((time.monotonic() - began) * (1 / self.share - 1))

    def _answer(self, statement: str, read: Callable[[bytes], T], patience: float | None, limit: int | None) -> T:
        tried = 0
        while True:
            tried += 1
            try:
                answer = read(self._exchange(statement, patience or self.timeout, limit))
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.close()
                if patience is not None and isinstance(error, TimeoutError):
                    raise TooSlow(f"{self.name} has not answered within {patience:g} s") from None
                if tried >= max(self.tries, self.tries_later * self._has_answered):
                    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
                    raise Unanswered(f"{self.name} does not answer: {words}") from None
                self.sleep(_PAUSE)
            else:
                self._has_answered = True
                return answer

    def _exchange(self, statement: str, timeout: float, limit: int | None) -> bytes:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.timeout = timeout
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout)
        asked = {**self.parameters, "q": statement, "epoch": "ns", "chunked": "true", "chunk_size": str(_CHUNK)}
        path = urlsplit(self.url).path or "/"
        head = {"Content-Type": "application/x-www-form-urlencoded", **self.headers}
        self._connection.request("POST", path, urlencode(asked).encode(), head)
        answer = self._connection.getresponse()
        if answer.status != http.client.OK:
            body = answer.read(10_000).decode(errors="replace")
            self.close()
            if answer.status >= http.client.INTERNAL_SERVER_ERROR:
                raise http.client.HTTPException(f"it answered {answer.status}: {_problem(body)}")
            raise Unanswered(f"{self.name} answered {answer.status}: {_problem(body)}")
        if limit is None:
            return answer.read()
        whole = answer.read(limit + 1)
        if len(whole) > limit:
            self.close()
            raise TooLarge(f"{self.name}: an answer has more than {limit} bytes")
        return whole

    def _series(self, body: bytes) -> Iterator[Series]:
        try:
            yield from read_series(body)
        except Unanswered as problem:
            self.close()
            if _RESTARTING.search(str(problem)):
                raise http.client.HTTPException(str(problem)) from None
            raise type(problem)(f"{self.name}: {problem}") from None

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.netloc, timeout=self.timeout, context=self.tls.context)
        return http.client.HTTPConnection(parts.netloc, timeout=self.timeout)

    def close(self) -> None:
        """Close the connection; the next statement opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def read_series(body: bytes) -> Iterator[Series]:
    """Yield what an answer has, one document after the other; numbers without a fraction stay exact.

    :raises Unanswered: it ends with an error.
    """
    for line in body.splitlines():
        if line.startswith(b"json: ") and b"unsupported value" in line:
            raise Overflowed(line.decode(errors="replace").strip())
        document = json.loads(line, parse_int=_integer if _ZERO.search(line) else None) if line.strip() else {}
        problem = document.get("error")
        for result in document.get("results", ()):
            problem = problem or result.get("error")
            for each in result.get("series", ()):
                yield Series(each.get("name", ""), each.get("tags", {}), each["columns"], each.get("values", []))
        if problem:
            raise Unanswered(shortened(str(problem), 200))


def _integer(digits: str) -> float:
    return NegativeZero(-0.0) if digits == "-0" else int(digits)


def _problem(body: str) -> str:
    try:
        return shortened(str(json.loads(body)["error"]), 200)
    except (ValueError, KeyError, TypeError):
        return shortened(body.strip().partition("\n")[0], 200)


def at_once(servers: Sequence[Server], work: Callable[[Server], T]) -> list[tuple[Server, T]]:
    """Do something with each server, at the same time; the threads hold nobody up who does not wait for them."""
    results: dict[str, T] = {}
    problems: list[Exception] = []

    def run(server: Server) -> None:
        try:
            results[server.name] = work(server)
        except Exception as error:  # noqa: BLE001 (raised below)
            problems.append(error)

    threads = [threading.Thread(target=run, args=(each,), daemon=True) for each in servers]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if problems:
        raise problems[0]
    return [(each, results[each.name]) for each in servers]
