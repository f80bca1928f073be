"""Requests and answers as they were received, and waiting for them in a test's own reactor."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

reactor: Any = _reactor
LOOPBACK = "127.0.0.1"
LINE = b"cpu,host=a value=1 1465839830100400200\n"
_PATIENCE = 300.0  # seconds after which a condition that does not come to hold is an error

HeaderList = tuple[tuple[bytes, bytes], ...]


async def until(condition: Callable[[], Any], what: str = "the condition") -> None:
    """Return when the condition holds; not holding in time is an error."""
    deadline = reactor.seconds() + _PATIENCE
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"{what} did not come to hold")
        await deferLater(reactor, 0.002)


async def together(*coroutines: Any) -> list[Any]:
    """Run coroutines at the same time and return what they return, or raise the first error."""
    results = await DeferredList([Deferred.fromCoroutine(each) for each in coroutines], consumeErrors=True)
    for success, result in results:
        if not success:
            result.raiseException()
    return [result for _, result in results]


def parse_head(head: bytes) -> tuple[list[bytes], HeaderList]:
    """Split a head into the three parts of its first line, and its headers with names in lower case."""
    first, *lines = head.split(b"\r\n")
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.strip().lower(), value.strip()))
    return first.split(b" ", 2), tuple(headers)


@attrs.frozen
class Message:
    """What requests and answers have in common.

    :ivar headers: in the order of arrival, names in lower case.
    """

    headers: HeaderList
    body: bytes

    def all(self, name: str) -> list[bytes]:
        """Return all values of a header."""
        wanted = name.lower().encode()
        return [value for each, value in self.headers if each == wanted]

    def header(self, name: str) -> bytes | None:
        """Return the value of a header that must not be there twice; None if it is missing."""
        values = self.all(name)
        if len(values) > 1:
            raise AssertionError(f"{name} is there {len(values)} times: {values}")
        return values[0] if values else None


@attrs.frozen
class Received(Message):
    """A request as a backend received it.

    :ivar connection: the number of the connection, from 0.
    """

    method: bytes
    path: bytes
    query: bytes
    connection: int

    @property
    def lines(self) -> bytes:
        """The body, decoded."""
        return gzip.decompress(self.body) if self.header("Content-Encoding") == b"gzip" else self.body


@attrs.frozen
class Answer(Message):
    """An answer as a client received it."""

    version: bytes
    status: int
    reason: bytes
