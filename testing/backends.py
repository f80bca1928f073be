"""A backend that a sender is given in tests, and the writes and answers that go with it."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import STATEMENT, Destination, Reply, Write
from influxrelay.delivery.connection_pool import NOT_OURS, Gate

TIMEOUT = 10.0
OK = Reply(204)
BAD = Reply(400, ((b"Content-Type", b"application/json"),), b'{"error":"unable to parse"}\n')
BROKEN = Reply(500, (), b'{"error":"engine is closed"}\n')
MISSING = Reply(404, (), b'{"error":"database not found: \\"db\\""}\n')
PERMANENT = Reply(500, (), b'{"error":"partial write: x"}\n')
PERMANENT_TEXTS = (
    b"retention policy not found",
    b"partial write",
    b"unable to parse",
    b"points beyond retention policy",
    b"field type conflict",
)


def destination(database: bytes = b"db", rp: bytes = b"", precision: bytes = b"ns", user: bytes = b"") -> Destination:
    """Return a destination that differs from the default one in what is given."""
    return Destination(database, rp, precision, (b"", user, b""))


def write(
    body: bytes,
    to: Destination | None = None,
    *,
    query: bytes = b"db=db",
    mergeable: bool = True,
) -> Write:
    """Return a write."""
    return Write(to or destination(), query, b"", body, mergeable)


def retry_later(seconds: object, status: int = 503) -> Reply:
    """Return an answer with a Retry-After."""
    return Reply(status, ((b"Retry-After", str(seconds).encode()),), b"busy")


class Post:
    """A request that the fake backend was asked to send."""

    def __init__(self, write: Write, body: bytes) -> None:
        self.write = write
        self.body = body
        self.result: Deferred[Reply] = Deferred()

    @property
    def pending(self) -> bool:
        """Whether it waits for its answer."""
        return not self.result.called

    def answer(self, reply: Reply = OK) -> None:
        """Answer it."""
        self.result.callback(reply)

    def fail(self, reason: str = "refused", error: Exception | None = None) -> None:
        """Let it fail."""
        self.result.errback(Failure(error or BackendFailure(reason, "as the test says")))


class FakeBackend:
    """A transport that records what it is given, and answers when the test says so.

    :ivar created: what it was asked to create, each with the Deferred of its answer.
    :ivar at_once: answers for the next requests, given before ``post`` returns; an exception is raised by ``post``.
    """

    name = "fake"
    timeout = TIMEOUT

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.created: list[tuple[Write, Deferred[Reply]]] = []
        self.at_once: list[Reply | BackendFailure | Exception] = []
        self._gate: Gate = lambda: True

    def post(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        """Record a request."""
        assert isinstance(write, Write)
        assert body_parts
        assert all(type(part) is bytes for part in body_parts)
        body = b"".join(body_parts)
        assert body
        if not self._gate():
            return fail(BackendFailure(NOT_OURS, "as the gate says"))
        post = Post(write, body)
        self.posts.append(post)
        if self.at_once:
            outcome = self.at_once.pop(0)
            if isinstance(outcome, Reply):
                post.result = succeed(outcome)
            elif isinstance(outcome, BackendFailure):
                post.result = fail(outcome)
            else:
                self.posts.pop()
                raise outcome
        return post.result

    def create_database(self, write: Write) -> Deferred[Reply]:
        """Record it."""
        self.created.append((write, Deferred()))
        return self.created[-1][1]

    def guard(self, gate: Gate) -> None:
        """Fail a post if this says so, as if it came to a connection at once."""
        self._gate = gate

    def abort_writes(self) -> None:
        """Fail the writes and statements in flight."""
        for post in list(self.pending):
            post.fail("stopped")

    def abort_changes(self) -> None:
        """Fail the statements in flight."""
        for post in self.pending:
            if post.write.destination.kind == STATEMENT:
                post.fail("timeout")

    def ping(self) -> Deferred[Reply]:
        """Answer at once."""
        return succeed(OK)

    def does_the_same(self, other: object) -> bool:
        """Tell whether it is this one."""
        return self is other

    def retire(self) -> None:
        """Have nothing to close."""

    def is_busy(self) -> bool:
        """Tell whether a request is under way."""
        return bool(self.pending)

    def abort(self) -> None:
        """Fail what is in flight."""
        for post in self.pending:
            post.fail("stopped")

    def close(self) -> Deferred[None]:
        """Have nothing to close."""
        return succeed(None)

    @property
    def pending(self) -> list[Post]:
        """The requests in flight."""
        return [post for post in self.posts if post.pending]

    @property
    def bodies(self) -> list[bytes]:
        """All bodies so far, in the order they were sent."""
        return [post.body for post in self.posts]
