"""``influxrelay repair`` beside a relay in front of real servers that know PromQL."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from influxrelay.config.loader import load
from influxrelay.service.relay_service import RelayService
from influxrelay.verification import sample_repair
from testing.prometheus_case import DAY, HEADERS, NOW, PrometheusCase, request_body, series, shown
from testing.scripted import reactor
from testing.servers import send


class SampleTests(PrometheusCase):
    """What a backend lacks is copied."""

    def start_relay(self, names: str) -> str:
        """Start a relay with a journal in front of some servers; return the path of its configuration."""
        directory = tempfile.mkdtemp(prefix="repair-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        path = self.config(names, listener=f'journal = "{directory}"')
        service = RelayService(load(path), reactor)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        return path

    async def _end(self, service: RelayService) -> None:
        await service.stopService()

    async def repair(self, config: str, backend: str, metric: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Repair a metric of a backend; return what the command says."""
        command = ("repair", backend, "--measurement", metric, "--json", *arguments)
        found, out, err = await self.run_command(config=config, command=command)
        self.assertEqual(found, code, out + err)
        answer: dict[str, Any] = json.loads(out)
        self.assertEqual(answer["complete"], code == 0)
        return answer

    async def test_copied(self) -> None:
        """Samples and whole series are copied to servers of either kind, exactly; other values stay as they are."""
        self.patch(sample_repair, "BATCH", 7)
        for source, target in ("pv", "vq", "vw"):
            metric = f"copied_{source}{target}"
            config = self.start_relay(source + target)
            values = [(1.5, -400 * DAY), (-0.0, -40 * DAY - 1), (float("inf"), -40 * DAY), (2.0**40, -1000), (0.1, -1)]
            self.write(source, series(metric, *values, host='b"\\\n é', Zone="x"), series(metric, *values, host="a"))
            self.write(source, series(metric, (5.0, -DAY)))
            self.write(target, series(metric, values[1], (7.0, -3 * DAY), host="a"), series(metric, (6.0, -DAY)))
            answer = await self.repair(config, target, metric, "--dry-run", code=1)
            self.assertEqual((answer["copied"], answer["differing"]), (9, 1))
            answer = await self.repair(config, target, metric)
            self.assertEqual((answer["copied"], answer["differing"], answer["not_copied"]), (9, 1, []))
            self.assertEqual([each["kind"] for each in answer["differences"]], ["value"])
            answer = await self.repair(config, target, metric)
            self.assertEqual((answer["copied"], answer["differing"], answer["not_copied"]), (0, 1, []))
            answer = await self.repair(config, source, metric)
            self.assertEqual((answer["copied"], answer["not_copied"]), (1, []))

    async def test_refused(self) -> None:
        """What is too old for a Prometheus is named; the rest of the same body is copied."""
        config = self.start_relay("vr")
        times = [-5 * DAY, -2 * DAY, -3_600_000, -60_000]
        self.write("r", series("late", (1.0, -1000), host="a"), series("late", (1.0, -1000), host="b"))
        self.write("v", *(series("late", *((float(when), when) for when in times), host=host) for host in "ab"))
        answer = await self.repair(config, "r", "late", code=1)
        self.assertEqual(answer["copied"], 4)
        ((since, points, message),) = [
            (each["since"], each["points"], each["message"]) for each in answer["not_copied"]
        ]
        self.assertEqual((since, points), (shown(-5 * DAY), 4))
        self.assertRegex(message, "too old|out of bounds|out of order")

    async def test_lost(self) -> None:
        """What the queue of a backend has dropped is copied, and then counts as lost no more."""
        config = self.start_relay("pv")
        (port,) = re.findall(r'bind-addr = "127.0.0.1:(\d+)"', await deferToThread(Path(config).read_text))
        await self.run_command(config=config, command=("queues", "pause", "v"))
        now = int(time.time() * 1000) - NOW
        written = request_body(series("lost", (1.0, now), host="a"), series("lost", (2.0, now), host="b"))
        url = f"http://127.0.0.1:{port}/api/v1/write"
        status, answer = await deferToThread(send, "POST", url, written, HEADERS)
        self.assertEqual(status, 204, answer)
        for words in (("drop", "v", "--yes"), ("resume", "v")):
            code, _, err = await self.run_command(config=config, command=("queues", *words))
            self.assertEqual(code, 0, err)
        code, out, err = await self.run_command(config=config, command=("queues",))
        self.assertIn("influxrelay repair v --listener main --lost", out)
        code, out, err = await self.run_command(config=config, command=("repair", "v", "--lost", "--json"))
        answer = json.loads(out)
        self.assertEqual((code, answer["copied"], answer["losses_forgotten"]), (0, 2, True), err)

    async def test_not_done(self) -> None:
        """What cannot be asked for of such a server ends with 2 and a reason."""
        config = self.start_relay("pv")
        for arguments, words in (
            (("--overwrite",), "v is a Prometheus backend, which never replaces a sample; leave out --overwrite"),
            (("--database", "d"), "v is a Prometheus backend, which has no databases"),
            (("--from", "x"), "x is not a backend of main that can be repaired"),
            (("--measurement", "nothing"), "no backend has a metric nothing"),
        ):
            code, out, err = await self.run_command(config=config, command=("repair", "v", *arguments))
            self.assertEqual((code, out), (2, ""))
            self.assertIn(words, err)
