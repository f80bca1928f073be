"""What the relay is told of verifications and repairs, and shows."""

from __future__ import annotations

import html
import json
import os
import re
from typing import Any

from twisted.internet.defer import Deferred

from influxrelay.service.relay_service import RelayService
from testing.admin import OperatedCase
from testing.scripted import LOOPBACK, request, until

ADMIN = f'[admin]\nbind-addr = "{LOOPBACK}:0"\n'
FOUND = {"differences": 3, "windows": 10, "points": 2000, "whole": True}
FILE = "verifications.json"


class ShownTests(OperatedCase):
    """The page, ``/status`` and ``/metrics``."""

    def relay(self, *, journal: bool = True) -> RelayService:  # type: ignore[override]  # of a whole relay
        """Start a relay with a journal and two backends."""
        self.socket.parent.mkdir(exist_ok=True)
        return self.operate(
            ADMIN, self.listener(self.backend(), self.backend(), journal=journal), top=f'admin-socket = "{self.socket}"'
        )

    async def report(self, **fields: int) -> Any:
        """Tell the relay of a verification."""
        return await self.order("verify report", listener="main", report={**FOUND, **fields})

    async def repair(self, points: int) -> None:
        """Copy points to the second backend."""
        write = {"database": "d", "retention_policy": "r", "lines": "m f=1 1", "source": "one"}
        found = await self.order("repair write", listener="main", backend="two", write=write, report={"points": points})
        self.assertEqual(found["outcome"], "taken")

    async def get(self, service: RelayService, path: bytes) -> str:
        """Ask the admin listener."""
        where: Any = service.admin
        found = await self.ask(where, request(path, b"", method=b"GET", length=-1))
        self.assertEqual(found.status, 200)
        return found.body.decode()

    async def metrics(self, service: RelayService) -> dict[str, float]:
        """Return the samples of verifications and repairs, without the listener's label."""
        lines = re.findall(r"(?m)^influxrelay_((?:verif|repaired)\S+) (\S+)$", await self.get(service, b"/metrics"))
        return {re.sub('listener="main",|,listener="main"', "", name): float(value) for name, value in lines}

    async def text(self, service: RelayService) -> str:
        """Return the words of the page."""
        return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", await self.get(service, b"/"))))

    async def test_nothing(self) -> None:
        """Before the first verification there is nothing."""
        service = self.relay()
        self.assertEqual(await self.metrics(service), {})
        (listener,) = (await service.describe())["listeners"]
        self.assertEqual((listener["verifications"], listener["repaired_points"]), ([], {}))
        self.assertNotIn("verified", await self.text(service))

    async def test_shown(self) -> None:
        """The last verification, and the points that were repaired, are shown everywhere."""
        service = self.relay()
        self.assertEqual(await self.report(), {})
        await self.repair(5)
        await self.repair(7)
        found = await self.metrics(service)
        self.assertGreater(found.pop('verification_timestamp_seconds{scope="all"}'), 1.7e9)
        self.assertEqual(
            found, {'verification_differences{scope="all"}': 3, 'repaired_points_total{backend="two"}': 12}
        )
        (listener,) = json.loads(await self.get(service, b"/status"))["listeners"]
        (shown,) = listener["verifications"]
        self.assertRegex(shown.pop("time"), r"^20\d\d-\S+Z$")
        self.assertEqual(shown, {"scope": "all", "differences": 3, "windows": 10, "points": 2000, "equal": False})
        self.assertEqual(listener["repaired_points"], {"two": 12})
        text = await self.text(service)
        for words in (
            "1 thing to look at",
            "its backends differed in 3 places at 20",
            "influxrelay verify --listener main",
            "; last verified 20",
            "repaired 12 points",
        ):
            self.assertIn(words, text)

    async def test_scopes(self) -> None:
        """A verification of a part is shown beside that of everything, until the next of everything."""
        service = self.relay()
        await self.report(differences=0)
        await self.report(differences=2, whole=False)
        counts = {name: value for name, value in (await self.metrics(service)).items() if "differences" in name}
        expected = {'verification_differences{scope="all"}': 0, 'verification_differences{scope="part"}': 2}
        self.assertEqual(counts, expected)
        self.assertIn("partly verified", await self.text(service))
        await self.report(differences=0)
        text = await self.text(service)
        self.assertIn("All is well", text)
        self.assertIn("its backends were equal", text)
        self.assertNotIn("partly", text)

    async def test_kept(self) -> None:
        """A relay with a journal knows it after a restart, or with systemd's directory; one without knows nothing."""
        for journal, systemd in ((True, ""), (False, f"{self.directory}:/elsewhere"), (False, "")):
            self.patch(os, "environ", {**os.environ, "STATE_DIRECTORY": systemd})
            service = self.relay(journal=journal)
            await self.report()
            await self.repair(5)
            path = (self.directory / "main" if journal else self.directory) / FILE
            is_kept = journal or bool(systemd)
            if is_kept:
                await until(lambda: path.exists() and '"repaired": {"two": 5}' in path.read_text())
            before = service._verifications.show("main")
            await Deferred.fromCoroutine(self._end(service))
            service = self.relay(journal=journal)
            after = service._verifications.show("main")
            self.assertEqual(after, before if is_kept else {"verifications": [], "repaired_points": {}})
            await Deferred.fromCoroutine(self._end(service))
            path.unlink(missing_ok=True)

    async def test_unreadable(self) -> None:
        """A file that makes no sense is none."""
        for text in ("", "[]", '{"main": 1}', '{"main": {"verifications": [{}], "repaired": {}}}'):
            self.socket.parent.mkdir(exist_ok=True)
            (self.directory / "main" / FILE).write_text(text)
            service = self.relay()
            self.assertEqual(service._verifications.show("main"), {"verifications": [], "repaired_points": {}})
            await Deferred.fromCoroutine(self._end(service))

    async def test_refused(self) -> None:
        """A report without its fields, or with others than numbers, is refused."""
        self.relay()
        self.assertEqual(await self.order("verify report", listener="main"), "the report lacks a field")
        wrong = "the request has a field of a wrong type"
        self.assertEqual(await self.order("verify report", report={**FOUND, "points": "1"}), wrong)
        self.assertEqual(await self.order("verify report", report=[1]), wrong)
