"""The metrics of what is kept, dropped and buried, in memory and in the journal."""

from __future__ import annotations

import errno
import threading
from typing import Any

from twisted.internet.task import deferLater

from influxrelay.config.settings import (
    HTTPOutputConfig,
    JournalConfig,
)
from influxrelay.core.errors import JournalError
from influxrelay.journal import statistics as journal_counts
from influxrelay.journal.store import Store
from influxrelay.operations import metrics
from testing.failing_disk import break_disk
from testing.metrics_case import MetricsCase
from testing.scripted import LINE, answer, reactor, request, until

REFUSAL = answer(400, b'{"error":"field type conflict"}\n')


class BufferTests(MetricsCase):
    """A queue in memory."""

    async def test_kept_dropped_buried(self) -> None:
        """What waits, what was dropped and what was refused for good have their figures, and the time they waited."""
        backend = self.backend(answer(503))
        relay = self.relay(self.output(backend, "one", buffer_size_mb=1), self.output(self.backend(), "two"))
        self.watch(relay)
        big = b"m v=1 1\n".ljust(1024 * 1024 - 3500, b"#")  # with all that is counted, there is room for it and LINE
        for body in (LINE, big, LINE, b"m v=2 2\n"):
            self.assertEqual((await self.ask(relay, request(body=body))).status, 204)
            await until(lambda: backend.requests, "the first try")
        one = ("test", "one")
        await self.wait_for("influxrelay_queue_writes", {one: 2})
        taken = (await self.figures("influxrelay_queue_bytes"))[one]
        self.assertGreater(taken, len(big) + len(LINE))
        self.assertLess(taken, 1024 * 1024)
        await self.assert_figure("influxrelay_queue_limit_bytes", {one: 1024 * 1024})
        await self.assert_figure("influxrelay_dropped_writes_total", {(*one, "full"): 2})
        await self.assert_figure("influxrelay_dropped_bytes_total", {(*one, "full"): len(LINE) + 8})
        age = (await self.figures("influxrelay_queue_oldest_age_seconds"))[one]
        self.assertGreater(age, 0)
        self.assertLess(age, 3600)
        backend.script.clear()
        backend.script.append(REFUSAL)
        await self.wait_for("influxrelay_dead_letters", {one: 2})
        await self.assert_figure("influxrelay_queue_writes", {})
        await self.assert_figure("influxrelay_queue_oldest_age_seconds", {})


class JournalTests(MetricsCase):
    """A queue on disk."""

    def begin(self, *outputs: HTTPOutputConfig, **limits: Any) -> None:
        """Start a relay with a journal."""
        self.directory = self.mktemp()
        self.service = self.relay(*outputs, journal=JournalConfig(self.directory, **limits))
        self.watch(self.service)

    async def test_kept_and_buried(self) -> None:
        """What waits in the journal is counted for each backend, and what was refused for good."""
        backend = self.backend(answer(503))
        self.begin(self.output(backend, "one"), self.output(self.backend(), "two"))
        for _ in range(3):
            self.assertEqual((await self.ask(self.service, request())).status, 204)
        one = ("test", "one")
        await self.wait_for("influxrelay_queue_writes", {one: 3})
        await self.assert_figure("influxrelay_queue_bytes", {one: 3 * len(LINE)})
        self.assertGreater((await self.figures("influxrelay_queue_oldest_age_seconds"))[one], 0)
        self.assertEqual(await self.figures("influxrelay_queue_limit_bytes"), {})
        await self.assert_figure("influxrelay_journal_limit_bytes", {("test",): 1024**3})
        await self.assert_figure("influxrelay_journal_trouble", {})
        for name in ("influxrelay_journal_used_bytes", "influxrelay_journal_commit_duration_seconds_count"):
            self.assertGreater((await self.figures(name))[("test",)], 2, name)
        backend.script.clear()
        backend.script.append(REFUSAL)
        await self.wait_for("influxrelay_dead_letters", {one: 3})
        await self.wait_for("influxrelay_queue_writes", {})
        backlogs = await self.figures("influxrelay_queue_oldest_age_seconds")
        self.assertEqual(backlogs, {one: 0, ("test", "two"): 0})

    async def test_dropped(self) -> None:
        """What the journal drops is counted by its reason, and every reason is there from the start."""
        self.begin(self.output(await self.refusing_backend(), "one"), self.output(self.backend(), "two"))
        await self.ask(self.service, request())
        one = ("test", "one")
        await self.wait_for("influxrelay_queue_writes", {one: 1})
        reasons = {labels[2] for labels in await self.figures("influxrelay_dropped_writes_total")}
        self.assertEqual(reasons, {"full", "age", "operator", "damaged", "stopped", "unqueued"})
        assert self.service.writer is not None
        await self.service.writer.discard("one")
        await self.wait_for("influxrelay_dropped_writes_total", {(*one, "operator"): 1})
        await self.assert_figure("influxrelay_dropped_bytes_total", {(*one, "operator"): len(LINE)})

    async def test_trouble(self) -> None:
        """A journal that does not work says so, and what is known of it gets older."""
        self.begin(self.output(self.backend(), "one"))
        await self.ask(self.service, request())
        await self.assert_figure("influxrelay_journal_trouble", {})
        self.assertEqual(await self.figures("influxrelay_dead_letters"), {("test", "one"): 0})
        writer = self.service.writer
        assert writer is not None
        broken = break_disk(self)
        await self.assertFailure(writer.probe(), JournalError)
        await self.assert_figure("influxrelay_journal_trouble", {("test",): 1})
        ages: list[float] = []
        while len(ages) < 3 or ages[-1] < 2:
            ages.append((await self.figures("influxrelay_journal_counts_age_seconds"))[("test",)])
            await deferLater(reactor, 0.2)
        self.assertEqual(ages, sorted(ages))
        broken.restore()

    async def test_slow_disk(self) -> None:
        """A scrape waits for a second at most; meanwhile writes are journaled, and what was known is told."""
        self.patch(metrics, "PATIENCE", 0.1)
        self.begin(self.output(self.backend(), "one"))
        self.assertEqual(await self.figures("influxrelay_dead_letters"), {("test", "one"): 0})
        go_on = threading.Event()

        def hang(*_: object) -> None:
            go_on.wait(60)
            raise OSError(errno.EIO, "Input/output error")

        self.patch(Store, "count_letters", hang)
        self.patch(journal_counts, "FRESH", 0.0)
        self.metrics._journals[self.service.writer]._next = 0.0  # type: ignore[index]
        for _ in range(3):
            self.assertEqual(await self.figures("influxrelay_dead_letters"), {("test", "one"): 0})
            self.assertEqual((await self.ask(self.service, request())).status, 204)
        await self.assert_figure("influxrelay_writes_total", {("test",): 3})
        go_on.set()
        (counts,) = self.metrics._journals.values()
        await until(lambda: not counts._waiting, "the end of the count")
