"""A thread that waits for the disk, so that nobody else has to, and a watch over how long it has been waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from influxrelay.transport.event_loop import event_loop

T = TypeVar("T")


class Worker(Protocol):
    """Does one job after the other.

    :ivar is_stuck: whether a job has been under way for too long.
    """

    is_stuck: bool

    def do(self, job: Callable[[], T]) -> Deferred[T]:
        """Do a job behind those that were given before; fires with what it returns, or fails with what it raises.

        While one has been under way for too long this fails at once, with a :class:`TimeoutError`.
        """

    def at_turns_end(self, call: Callable[[], object]) -> None:
        """Call this when the reactor is done with what has arrived by now, so that all of it can be one job; or now."""

    def set_timeout(self, seconds: float) -> None:
        """Say for how long a job may be under way, the present one included."""

    def stop(self) -> None:
        """Do nothing more; if a job is under way, it is left alone."""


class ThreadWorker:
    """A worker with a thread, which begins with the first job.

    :param timeout: seconds for which a job may be under way.
    :param on_stuck: is told when one has been for longer, and what that means, for people.
    """

    def __init__(self, reactor: Any, name: str, timeout: float, on_stuck: Callable[[str], object]) -> None:
        self.is_stuck = False
        self._reactor = reactor
        self._loop = event_loop(reactor)
        self._timeout = timeout
        self._on_stuck = on_stuck
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = queue.SimpleQueue()
        self._left = 0
        self._since = 0.0  # when the job under way has begun, at the latest
        self._watch: IDelayedCall | None = None
        self._name = name
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], T]) -> Deferred[T]:
        """Do a job in the thread."""
        if self.is_stuck:
            return fail(TimeoutError(no_answer(self._timeout)))
        done: Deferred[T] = Deferred()
        if self._thread is None:
            self._start()
        self._left += 1
        if self._left == 1:
            self._since = self._reactor.seconds()
            if self._watch is None:
                self._watch = self._reactor.callLater(self._timeout, self._look)
        self._jobs.put((job, done))
        return done

    def _start(self) -> None:
        tell = self._reactor.callFromThread if self._loop is None else self._loop.call_soon_threadsafe  # much quicker
        self._thread = threading.Thread(target=self._run, args=(tell,), name=self._name, daemon=True)
        self._thread.start()

    def at_turns_end(self, call: Callable[[], object]) -> None:
        """Call this soon, if the reactor is an event loop: with others that takes longer than two jobs."""
        if self._loop is None:
            call()
        else:
            self._loop.call_soon(call)

    def set_timeout(self, seconds: float) -> None:
        """Let this hold, also for the job under way."""
        self._timeout = seconds
        if self._watch is not None:
            self._watch.cancel()
            self._watch = self._reactor.callLater(max(0.0, self._since + seconds - self._reactor.seconds()), self._look)

    def stop(self) -> None:
        """End the thread, and wait for it unless it is stuck."""
        self._jobs.put(None)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._thread is not None and not self._left:
            self._thread.join()

    def _look(self) -> None:
        """See whether the job under way is late; there is a look ahead as long as there are jobs."""
        self._watch = None
        if not self._left:
            return
        left = self._since + self._timeout - self._reactor.seconds()
        if left > 0:
            self._watch = self._reactor.callLater(left, self._look)
        else:
            self.is_stuck = True
            self._on_stuck(no_answer(self._timeout))

    def _run(self, tell: Callable[..., object]) -> None:
        while (given := self._jobs.get()) is not None:
            job, done = given
            result: Any
            try:
                result = job()
            except Exception:  # noqa: BLE001 (whatever it is, it is told to who has given the job)
                result = Failure()
            tell(self._done, done, result)

    def _done(self, done: Deferred[Any], result: Any) -> None:
        self._left -= 1
        self._since = self._reactor.seconds()
        self.is_stuck = False
        if self._left and self._watch is None:
            self._watch = self._reactor.callLater(self._timeout, self._look)
        done.callback(result)


def no_answer(seconds: float) -> str:
    """Return what is wrong with a disk that does not answer, for people."""
    return f"the disk has not answered for {seconds:g} s"


def in_thread(reactor: Any, name: str, job: Callable[[], T]) -> Deferred[T]:
    """Do one job in a thread of its own, for which the end of the process does not wait."""
    done: Deferred[T] = Deferred()

    def run() -> None:
        result: Any
        try:
            result = job()
        except Exception:  # noqa: BLE001 (it is told to who has given the job)
            result = Failure()
        reactor.callFromThread(done.callback, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


class InlineWorker:
    """A worker without a thread: each job is done when it is given."""

    is_stuck = False

    def __init__(self, *_: object) -> None:
        pass

    def do(self, job: Callable[[], T]) -> Deferred[T]:
        """Do a job now."""
        try:
            return succeed(job())
        except Exception:  # noqa: BLE001 (as above)
            return fail()

    def at_turns_end(self, call: Callable[[], object]) -> None:
        """Call this now."""
        call()

    def set_timeout(self, seconds: float) -> None:
        """Nothing is ever late."""

    def stop(self) -> None:
        """Nothing is left to do."""
