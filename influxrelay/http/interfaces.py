"""What connections need of the site that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.web.resource import Resource

from influxrelay.core.write import Reply, Write
from influxrelay.delivery.fate import Waiter
from influxrelay.http.head import Head, HeadCache
from influxrelay.http.overload import Client
from influxrelay.http.request import Host, Request
from influxrelay.lineprotocol.scanner import Steps


class AnyFanOut(Protocol):
    """Whoever gives writes to backends: a fan-out, or one for each of several shards."""

    @property
    def at_once(self) -> int:
        """Up to how many bytes a body of lines may have to be submitted without being divided."""

    @property
    def divides_lines(self) -> bool:
        """Whether backends may get different lines."""

    @property
    def divides_series(self) -> bool:
        """Whether backends may get different series of a remote write."""

    def divide_slowly(self, write: Write) -> Steps[Any]:
        """Find out bit by bit who gets what of a write.

        :raises InvalidRequest: something of it can be for nobody.
        """

    def submit(self, write: Write, consistency: str = "", division: Any = None) -> Deferred[Reply]:
        """Do as :meth:`submit_for`, and fire with the answer. Never fails."""

    def submit_for(self, waiter: Waiter, write: Write, consistency: str = "", division: Any = None) -> None:
        """Give a write to the backends, and the answer for the client to who waits for it.

        :param division: what :meth:`divide_slowly` has found.
        """


class Site(Host, Protocol):
    """A site, as its connections see it."""

    @property
    def heads(self) -> HeadCache:
        """The heads that were read before."""

    @property
    def closing(self) -> bool:
        """Whether each response is its connection's last."""

    @property
    def max_body_size(self) -> int:
        """The largest body, in bytes; 0 for no limit."""

    def find(self, head: Head) -> Resource | None:
        """Return the resource at a path, if there is one."""

    def render(self, request: Request) -> None:
        """Have a request answered by its resource; never raises."""

    def take_turns(self, turns: Iterator[None], failed: Callable[[], None]) -> None:
        """Go through what may take long, a bit in each turn of the reactor; tell whoever it is if that fails."""

    def refused_unread(self, status: int) -> None:
        """Count a response to what could not be read."""

    def call_later(self, seconds: float, call: Any) -> IDelayedCall:
        """Call something after a while."""

    def lost(self, connection: Client) -> None:
        """Forget a connection."""
