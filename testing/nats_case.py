"""A cluster of NATS servers with two engines, for tests on a reactor on asyncio (:mod:`testing.reactors`)."""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.engine import NatsEngine
from testing.nats import NatsCluster
from testing.scripted import until

_numbers = itertools.count(1)


@functools.cache
def _shared_cluster() -> NatsCluster:
    directory = tempfile.mkdtemp(prefix="nats-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    cluster = NatsCluster(directory)
    atexit.register(cluster.stop)
    cluster.start()
    return cluster


class EngineCase(TestCase):
    """Engines that end with the test.

    :ivar stream: what the engines' stream is called.
    """

    timeout = 600
    limits = JournalLimits(10_000_000)
    stream = "relay"

    @property
    def directory(self) -> Path:
        """Return a directory for servers, which is removed at the end."""
        if self._directory is None:
            made = tempfile.mkdtemp(prefix="nats-")
            self.addCleanup(shutil.rmtree, made, ignore_errors=True)
            self._directory = Path(made) / "servers"
        return self._directory

    _directory: Path | None = None

    def engine(self, addresses: str, **more: Any) -> NatsEngine:
        """Return an engine that ends with the test."""
        place = f"nats://{addresses}/{self.stream}"
        engine = NatsEngine(reactor, place, addresses.split(","), self.stream, self.limits, **more)
        self.addCleanup(engine.close)
        return engine

    async def connected(self, addresses: str, **more: Any) -> NatsEngine:
        """Return an engine that is connected."""
        engine = self.engine(addresses, **more)
        await engine.connect()
        return engine


class NatsCase(EngineCase):
    """A cluster of three, and two engines."""

    def cluster(self) -> NatsCluster:
        """Return servers that the test may kill; all tests without wishes have the same."""
        return _shared_cluster()

    async def setUp(self) -> None:  # type: ignore[override] # Twisted takes it
        """Start the servers, and connect both engines."""
        self.servers = await deferToThread(self.cluster)
        self.stream = f"relay{next(_numbers)}"
        self.one: Any = await self.connected(self.servers.addresses)
        self.two: Any = await self.connected(self.servers.addresses)

    async def done(self, deferred: Deferred[Any]) -> Any:
        """Wait for a result."""
        return await deferred

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something holds."""
        await until(condition)
