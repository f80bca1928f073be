"""The page for people, in a real browser, before real servers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from testing.browser import look
from testing.messages import until
from testing.servers import LOOPBACK, Influxd, Relay, free_port, send

_LIGHT, _DARK = "rgb(255, 255, 255)", "rgb(20, 23, 26)"


class PageTests(TestCase):
    """The page."""

    timeout = 600

    async def setUp(self) -> None:  # type: ignore[override]
        """Start a relay before two servers."""
        directory = tempfile.TemporaryDirectory(prefix="page-")
        self.addCleanup(directory.cleanup)
        base = Path(directory.name)
        self.influxds = [Influxd(base / each) for each in ("one", "two")]
        port, admin = free_port(), free_port()
        outputs = ", ".join(
            f'{{ name = "{each.directory.name}", location = "{each.url}/write" }}' for each in self.influxds
        )
        config = (
            f'[admin]\nbind-addr = "{LOOPBACK}:{admin}"\n[[http]]\nname = "metrics"\n'
            f'bind-addr = "{LOOPBACK}:{port}"\njournal = "{base}/journal"\noutput = [{outputs}]\n'
        )
        self.relay = Relay(base / "relay", config, port)
        self.url = f"http://{LOOPBACK}:{admin}/"
        self.picture = base / "page.png"
        await deferToThread(self._start)

    def _start(self) -> None:
        for each in (*self.influxds, self.relay):
            each.start()
            self.addCleanup(deferToThread, each.stop)
        self.ask("CREATE DATABASE db")

    def ask(self, statement: str) -> None:
        """Have both servers execute a statement."""
        for each in self.influxds:
            self.assertEqual(send("POST", f"{each.url}/query?q={statement.replace(' ', '%20')}", b"")[0], 200)

    def write(self, line: bytes) -> int:
        """Write a line through the relay, and return the status."""
        return send("POST", f"{self.relay.url}/write?db=db", line)[0]

    def look(self, **settings: Any) -> Deferred[dict[str, Any]]:
        """Open the page."""
        return deferToThread(look, self.url, **settings)

    def check_looks(self, found: dict[str, Any]) -> None:
        """Check that everything fits, works, and comes from the relay."""
        self.assertEqual((found["overflow"], found["problems"]), (0, []))
        own = [each for each in found["asked"] if each.startswith(self.url) or each == "data:,"]
        self.assertEqual(found["asked"], own)

    async def test_outage(self) -> None:
        """An outage is told as it goes on, on a phone as on a desk, in light and dark, without a hand."""
        found = await self.look()
        self.check_looks(found)
        self.assertIn("All is well", found["text"])
        self.assertEqual(found["background"], _LIGHT)

        await deferToThread(self.influxds[1].kill)
        for number in range(3):
            self.assertEqual(await deferToThread(self.write, b"m v=%d\n" % number), 204)
        found = await self.look(
            width=360,
            dark=True,
            condition="document.body.innerText.includes('two of metrics: takes no writes since')",
            screenshot=str(self.picture),
        )
        self.check_looks(found)
        self.assertEqual(found["background"], _DARK)
        self.assertTrue(found["title"].startswith("1 thing to look at"))
        for words in ("3 writes kept for it", self.influxds[1].url, "check that it runs", "refused"):
            self.assertIn(words, found["text"])
        self.assertTrue(self.picture.read_bytes().startswith(b"\x89PNG"))

        await deferToThread(self.influxds[1].start)
        self.check_looks(await self.look(condition="document.body.innerText.includes('All is well')"))

    async def test_silent(self) -> None:
        """A page whose relay has died says so."""
        opened = self.picture.with_name("opened")
        condition = "document.body.innerText.includes('The relay does not answer')"
        waiting = self.look(opened=str(opened), condition=condition)
        await until(opened.exists)
        await deferToThread(self.relay.kill)
        self.assertIn("what is below is old", (await waiting)["text"])
