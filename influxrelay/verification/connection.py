"""One server that is asked: over a connection that is kept, again while it may be restarting, and at a pace."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode, urlsplit

import attrs

from influxrelay.core.errors import InfluxRelayError
from influxrelay.core.text import count, shortened
from influxrelay.transport.tls import ClientTLS

T = TypeVar("T")

_TRIES = 3
_PAUSE = 1.0  # seconds between two of them


class Unanswered(InfluxRelayError):
    """A server does not answer, or not with a result; ``str()`` is one line for the operator."""


class NotFound(Unanswered):
    """A server has not what was asked for, or not what could tell."""


class TooSlow(Unanswered):
    """A server has not answered in the time that it was given."""


class TooLarge(Unanswered):
    """An answer is larger than was asked for."""


def paced(work: Callable[[], T], share: float, sleep: Callable[[float], None], clock: Callable[[], float]) -> T:
    """Do something, and rest until it has taken no more than a share of the time.

    :param share: above 0, at most 1.
    """
    began = clock()
    try:
        return work()
    finally:
        if share < 1:
            sleep((clock() - began) * (1 / share - 1))


def waiting(problem: str, tries: int) -> str:
    """Say that something is tried again, so many times in all."""
    return f"{problem}; trying again for up to {count(tries, 'second')}"


class Restarting(Exception):
    """An answer that a server gives while it starts or stops: it is to be asked again."""


@attrs.define
class Connection:
    """A backend.

    :ivar url: for queries.
    :ivar headers: for each request.
    :ivar parameters: for each request: what stands in the query string of the output's location.
    :ivar timeout: seconds for each piece of an answer.
    :ivar tries: how often a request is sent, a second apart, before the server counts as unanswering; and
        ``tries_later`` if these are more and it has answered before: it may be restarting.
    :ivar share: of the time that the server may be kept busy, above 0 and at most 1.
    :ivar tell: is told when the server does not answer for a while.
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
    clock: Callable[[], float] = time.monotonic
    tell: Callable[[str], None] = lambda words: None  # noqa: ARG005
    _connection: http.client.HTTPConnection | None = attrs.field(default=None, init=False)
    _has_answered: bool = attrs.field(default=False, init=False)

    def get(
        self,
        path: str,
        asked: Mapping[str, str],
        read: Callable[[bytes], T],
        *,
        patience: float | None = None,
        limit: int | None = None,
    ) -> T:
        """Return what is read from the answer to a GET; see :meth:`post`."""
        query = urlencode({**self.parameters, **asked})
        target = f"{path}?{query}" if query else path
        return self._answer(lambda: read(self._exchange("GET", target, b"", patience, limit=limit)), patience)

    def post(
        self,
        path: str,
        asked: Mapping[str, str],
        read: Callable[[bytes], T],
        *,
        patience: float | None = None,
        limit: int | None = None,
        accept: str = "",
    ) -> T:
        """Return what is read from the answer to a form.

        :param read: may raise :exc:`ValueError` or :class:`Restarting`: then it is asked again.
        :param patience: seconds in which the answer has to begin; None for ``timeout``.
        :param limit: of its bytes; None for any.
        :param accept: the content type that is asked for; empty for the server's own.
        :raises TooSlow: it does not begin in these seconds.
        :raises TooLarge: it has more bytes.
        :raises Unanswered: there is none.
        """
        body = urlencode({**self.parameters, **asked}, errors="surrogateescape").encode()
        return self._answer(
            lambda: read(self._exchange("POST", path, body, patience, limit=limit, accept=accept)), patience
        )

    def _answer(self, ask: Callable[[], T], patience: float | None) -> T:
        tried = 0
        while True:
            tried += 1
            try:
                answer = paced(ask, self.share, self.sleep, self.clock)
            except (OSError, http.client.HTTPException, ValueError, Restarting) as error:
                self.close()
                if patience is not None and isinstance(error, TimeoutError):
                    raise TooSlow(f"{self.name} has not answered within {patience:g} s") from None
                words = getattr(error, "strerror", None) or str(error) or type(error).__name__
                tries = max(self.tries, self.tries_later * self._has_answered)
                if tried >= tries:
                    raise Unanswered(f"{self.name} does not answer: {words}") from None
                if tried == _TRIES:
                    self.tell(waiting(f"{self.name} does not answer: {words}", tries))
                self.sleep(_PAUSE)
            else:
                self._has_answered = True
                return answer

    def _exchange(
        self, method: str, path: str, body: bytes, patience: float | None, *, limit: int | None, accept: str = ""
    ) -> bytes:
        if self._connection is None:
            self._connection = self._connect()
        timeout = patience or self.timeout
        self._connection.timeout = timeout
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout)
        form = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        wanted = {"Accept": accept} if accept else {}
        self._connection.request(method, path, body or None, {**form, **wanted, **self.headers})
        answer = self._connection.getresponse()
        if answer.status != http.client.OK:
            text = answer.read(10_000).decode(errors="replace")
            self.close()
            self._refused(answer.status, text)
        if limit is None:
            return answer.read()
        whole = answer.read(limit + 1)
        if len(whole) > limit:
            self.close()
            raise TooLarge(f"{self.name}: an answer has more than {limit} bytes")
        return whole

    def _refused(self, status: int, text: str) -> None:
        """Raise for an answer with another status than 200."""
        if status >= http.client.INTERNAL_SERVER_ERROR:
            raise Restarting(f"it answered {status}: {problem(text)}")
        kind = NotFound if status == http.client.NOT_FOUND else Unanswered
        raise kind(f"{self.name} answered {status}: {problem(text)}")

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.netloc, timeout=self.timeout, context=self.tls.context)
        return http.client.HTTPConnection(parts.netloc, timeout=self.timeout)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def problem(body: str) -> str:
    """Return what an answer says is wrong, in the JSON of InfluxDB or Prometheus, or as text."""
    try:
        said: dict[str, Any] = json.loads(body)
        return shortened(str(said.get("error") or said["message"]), 200)
    except (ValueError, LookupError, TypeError, AttributeError):
        return shortened(body.strip().partition("\n")[0], 200)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


S = TypeVar("S", bound=_Named)


def at_once(servers: Sequence[S], work: Callable[[S], T]) -> list[tuple[S, T]]:
    """Do something with each server, at the same time; the threads hold nobody up who does not wait for them."""
    results: dict[str, T] = {}
    problems: list[Exception] = []

    def run(server: S) -> None:
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
