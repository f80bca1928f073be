"""The page for people at ``/`` of the admin listener, asked over HTTP."""

from __future__ import annotations

import html
import re
from typing import Any
from xml.etree import ElementTree as ET

from influxrelay.operations.dead_letters import oldest_letters
from influxrelay.service.relay_service import RelayService
from testing.admin import BAD, REFUSAL, OperatedCase
from testing.scripted import LOOPBACK, Answer, Hold, answer, request, until

ADMIN = f'[admin]\nbind-addr = "{LOOPBACK}:0"\n'
HOSTILE = "<script>alert('x')</script>&"


class PageTests(OperatedCase):
    """The page."""

    async def get(self, service: RelayService, path: bytes = b"/", method: bytes = b"GET") -> Answer:
        """Ask the admin listener."""
        where: Any = service.admin
        client = await self.client(where)
        client.send(request(path, b"", method=method, length=-1))
        found = await client.answer(to_head=method == b"HEAD")
        client.vanish()
        return found

    async def text(self, service: RelayService) -> str:
        """Return the words of the page, which is well-formed."""
        found = await self.get(service)
        self.assertEqual(found.status, 200)
        page = found.body.decode()
        ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
        return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))

    async def test_well(self) -> None:
        """A relay without troubles says so, with each listener and backend."""
        service = self.operate(ADMIN, self.listener(self.backend(), self.backend()))
        self.assertEqual(await self.write(service), 204)
        text = await self.text(service)
        for words in ("All is well", "main", "takes writes", "one", "two", "waiting 0"):
            self.assertIn(words, text)
        self.assertNotIn("Dead letters", text)
        self.assertNotIn("Warnings", text)

    async def test_trouble(self) -> None:
        """A backend that is down comes first: since when, why, what waits, and what to do."""
        service = self.operate(ADMIN, self.listener(self.backend(), self.backend(answer(500, b"disk full\n"))))
        await self.write(service)
        await until(lambda: service.listeners[0].senders[1].state == "trouble")
        service.page.history.add(await service.describe())
        text = await self.text(service)
        self.assertIn("1 thing to look at", text)
        self.assertRegex(text, r"two of main: takes no writes since [0-9TZ:-]+ \([0-9]s\)")
        for words in ("disk full", "1 write kept for it", "check that it runs", "Warnings and errors in the log"):
            self.assertIn(words, text)

    async def test_refused(self) -> None:
        """When writes are refused the page begins with that."""
        service = self.operate(ADMIN, self.listener(self.backend(answer(500)), journal=False))
        await self.write(service)
        text = await self.text(service)
        self.assertIn("2 things to look at", text)
        self.assertLess(text.index("Writes are refused: main: 0 of 1 backends"), text.index("one of main"))

    async def test_lost(self) -> None:
        """What is lost is told, with the time range and the command that ends the matter."""
        service = self.operate(ADMIN, self.listener(self.backend(), self.backend(answer(500)), journal=False))
        await self.write(service)
        await until(lambda: bool(service.listeners[0].senders[1].backlog.losses()))
        text = await self.text(service)
        self.assertIn("lost 1 write", text)
        self.assertRegex(
            text, r"accepted from [0-9TZ:-]+ to [0-9TZ:-]+ : .* influxrelay repair two --listener main --lost"
        )

    async def test_dead_letters(self) -> None:
        """Dead letters are shown with what the backend has said, and the first line, without being HTML."""
        holds = [Hold(answer(400, REFUSAL)) for _ in range(7)]  # until the other one has accepted
        service = self.operate(ADMIN, self.listener(self.backend(), self.backend(*holds)))
        body = BAD + HOSTILE.encode() + b"\n"
        for hold in holds:
            await self.write(service, b"/write?db=db", body)
            hold.release()
        senders = service.listeners[0].senders
        await until(lambda: len(senders[0].queues) == len(senders[1].queues) == 0)
        letters = await oldest_letters(service.listeners, 5)
        self.assertEqual(len(letters), 5)
        text = await self.text(service)
        self.assertIn("7 writes that a backend has refused for good", text)
        self.assertIn("cpu value=oops", text)

    async def test_hostile_words(self) -> None:
        """Whatever a backend says is shown as text."""
        service = self.operate(ADMIN, self.listener(self.backend(), self.backend(answer(500, HOSTILE.encode()))))
        await self.write(service)
        await until(lambda: service.listeners[0].senders[1].state == "trouble")
        found = await self.get(service)
        self.assertNotIn(b"<script>alert", found.body)
        self.assertIn(HOSTILE, await self.text(service))

    async def test_answers(self) -> None:
        """Nothing on the page may come from elsewhere, nothing is stored; HEAD works, and nothing else does."""
        service = self.operate(ADMIN, self.listener(self.backend()))
        for path, media_type in ((b"/", b"text/html"), (b"/page.css", b"text/css"), (b"/page.js", b"text/javascript")):
            found = await self.get(service, path)
            head = await self.get(service, path, b"HEAD")
            self.assertEqual((found.status, head.status, head.body), (200, 200, b""))
            self.assertEqual(found.header("Content-Type"), media_type + b"; charset=utf-8")
            self.assertEqual(found.header("Cache-Control"), b"no-store")
            self.assertIn(b"default-src 'none'", found.header("Content-Security-Policy") or b"")
            self.assertNotIn(
                b"//", re.sub(rb"/\*.*?\*/|^\s*//.*?$", b"", found.body, flags=re.MULTILINE).replace(b"http://127", b"")
            )
            refused = await self.get(service, path, b"POST")
            self.assertEqual((refused.status, refused.header("Allow")), (405, b"GET, HEAD"))

    async def test_not_for_clients(self) -> None:
        """A listener for clients has no such page."""
        service = self.operate(ADMIN, self.listener(self.backend()))
        self.assertEqual((await self.ask(self.http(service), request(b"/", b"", method=b"GET", length=-1))).status, 404)
