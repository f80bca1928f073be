"""Posts to one backend: the one request that a sender has in flight for a destination, and its reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from httptools import HttpResponseParser
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import TAKEN
from influxrelay.core.write import Reply
from influxrelay.delivery.connection_pool import ConnectionPool, Exchange, Gate
from influxrelay.delivery.response_reader import MAX_ANSWER, PARSER_ERRORS, is_final, make_parser, read_reply

_NO_CONTENT, _END = b"HTTP/1.1 204 ", b"\r\n\r\n"
_MAX_RECEIVED = MAX_ANSWER + 64 * 1024  # bytes, with head and chunk sizes


class Exchanges:
    """Posts, each within one timeout that covers everything: a free connection, the request and the whole response.

    :param timeout: seconds.
    :ivar gate: tells, directly before the bytes of each request, whether they may be sent; None if they may.
    """

    def __init__(self, reactor: IReactorTime, pool: ConnectionPool, timeout: float) -> None:
        self._reactor = reactor
        self._pool = pool
        self._timeout = timeout
        self.gate: Gate | None = None
        self._under_way: dict[_Post, None] = {}  # in the order of their deadlines
        self._timer: IDelayedCall | None = None

    def post(self, pieces: Sequence[bytes], *, wants_headers: bool = False) -> Deferred[Reply]:
        """Send a request.

        :param wants_headers: whether the headers of a 204 matter, too.
        :return: fires with any final answer; fails with :class:`BackendFailure` where there is no clear status line.
        """
        post = _Post(self, pieces, self._reactor.seconds() + self._timeout, self.gate, wants_headers=wants_headers)
        self._under_way[post] = None
        if self._timer is None:
            self._timer = self._reactor.callLater(self._timeout, self._expire)
        self._pool.submit(post)
        return post.result

    def settled(self, post: _Post) -> None:
        """Note that a post has an outcome."""
        del self._under_way[post]

    def _expire(self) -> None:
        """Fail the posts whose time is up."""
        self._timer = None
        now = self._reactor.seconds()
        expired = list(takewhile(lambda post: post.deadline <= now, self._under_way))
        self._interrupt(expired, lambda missing: BackendFailure("timeout", f"{missing} within {self._timeout:g} s"))
        for post in self._under_way:
            if self._timer is None:
                self._timer = self._reactor.callLater(post.deadline - now, self._expire)
            break

    def abort(self) -> None:
        """Fail what is under way, with the reason ``stopped``."""
        self._interrupt(list(self._under_way), lambda _: BackendFailure("stopped", "the relay is shutting down"))
        self.stop_timer()

    def _interrupt(self, posts: Sequence[_Post], explain: Callable[[str], BackendFailure]) -> None:
        """Fail posts; first those that wait for a connection, so that none is made for them."""
        problems = [explain(self._pool.interrupt(post)) for post in reversed(posts)]
        for post, problem in zip(posts, reversed(problems), strict=True):
            post.fail(problem)

    def stop_timer(self) -> None:
        """Leave no timer behind if nothing is under way."""
        if self._timer is not None and not self._under_way:
            self._timer.cancel()
            self._timer = None

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._under_way)


def _is_plain(data: bytes) -> bool:
    """Tell whether this is a 204, all of it and nothing else, and says nothing of its connection: that stays open."""
    is_whole = data.startswith(_NO_CONTENT) and data.find(_END) == len(data) - len(_END)
    return is_whole and b"connection" not in data.lower()


class _Post(Exchange):
    """One post.

    Nearly every response is a plain 204 in one piece. Others are only framed at first; headers and body are read
    afterwards, where they matter.
    """

    __slots__ = (
        "_complete",
        "_owner",
        "_parser",
        "_received",
        "_size",
        "_status",
        "_wants_headers",
        "deadline",
        "result",
    )

    def __init__(
        self, owner: Exchanges, pieces: Sequence[bytes], deadline: float, gate: Gate | None, *, wants_headers: bool
    ) -> None:
        super().__init__(pieces, gate)
        self.deadline = deadline
        self.result: Deferred[Reply] = Deferred()
        self._owner = owner
        self._wants_headers = wants_headers
        self._parser: HttpResponseParser | None = None
        self._received: list[bytes] = []
        self._size = self._status = 0
        self._complete = False

    def feed(self, data: bytes) -> bool:
        """Take bytes of the response; return whether nothing more is expected."""
        parser = self._parser
        if parser is None:
            if not self._received and not self._wants_headers and _is_plain(data):
                self._status, self._complete, self.keep_alive = 204, True, True
                return True
            parser = self._parser = make_parser(self)
        self._received.append(data)
        self._size += len(data)
        try:
            parser.feed_data(data)
        except PARSER_ERRORS:
            self.keep_alive = False
            return True
        return self._complete or self._size > _MAX_RECEIVED

    def on_message_begin(self) -> None:
        """Notice what follows the response: its connection cannot be trusted."""
        self.keep_alive = False

    def on_message_complete(self) -> None:
        """Note the end of the response, unless it is an interim one."""
        parser = self._parser
        if parser is not None and not self._complete and is_final(parser.get_status_code()):
            self._status = parser.get_status_code()
            self._complete = True
            self.keep_alive = self._status != 101 and parser.should_keep_alive()

    def finish(self) -> None:
        """Report the outcome: a complete answer, or one that cannot be read."""
        if self._complete and self._status == 204 and not self._wants_headers:
            self._settle(TAKEN)
        else:
            self._read(BackendFailure("garbage", f"an answer of more than {MAX_ANSWER} bytes"))

    def fail(self, problem: BackendFailure, *, closed: bool = False) -> None:
        """Report the outcome where nothing more of the response will come."""
        if self._received:
            self._read(problem, closed=closed)
        else:
            self._settle(problem)

    def _read(self, problem: BackendFailure, *, closed: bool = False) -> None:
        self._settle(read_reply(b"".join(self._received), problem, closed=closed))

    def _settle(self, outcome: Reply | BackendFailure) -> None:
        self._parser = None  # they refer to each other
        self._received.clear()
        self._owner.settled(self)
        if isinstance(outcome, Reply):
            self.result.callback(outcome)
        else:
            self.result.errback(outcome)
