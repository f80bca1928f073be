"""Dead letters, as operators see, send and delete them through the admin socket."""

from __future__ import annotations

import json
from base64 import b64encode

from twisted.internet.defer import Deferred

from influxrelay.operations import dead_letters
from testing.admin import BAD, HEADER, REFUSAL, SECRET, OperatedCase
from testing.scripted import (
    Hold,
    answer,
    until,
)


class LetterTests(OperatedCase):
    """Dead letters."""

    async def _whole_story(self, *, journal: bool) -> None:
        service, bad = await self.with_letters(3, journal=journal)
        found = await self.order("dead-letters list")
        first, second, third = (each["id"] for each in found["dead_letters"])
        shown = await self.order("dead-letters show", ids=[first])
        self.assertEqual(shown["lines"], BAD.decode())
        self.assertEqual((shown["database"], shown["retention_policy"], shown["precision"]), ("db", "week", "s"))
        self.assertEqual((shown["status"], shown["backend"]), (500, "two"))
        self.assertEqual(shown["message"], "unable to parse 'cpu value=oops': invalid boolean")
        self.assertNotIn("SECRET", json.dumps([found, shown]))
        before = len(bad.requests)
        again = await self.order("dead-letters replay", ids=[first])
        self.assertEqual(again["replayed"], [])
        self.assertIn("unable to parse", again["failed"][0]["reason"])
        bad.script.clear()
        bad.script.append(answer(204))
        again = await self.order("dead-letters replay", ids=[first, first])
        self.assertEqual(again, {"replayed": [first], "failed": []})
        self.assertEqual(self.progress, [{"done": 0, "total": 1}])
        sent = bad.requests[before + 1]
        # A journal keeps the credentials that count: u and p go before the header, in InfluxDB too.
        header = b"Basic " + b64encode(b"me:SECRET-query") if journal else HEADER[15:]
        self.assertEqual((sent.body, sent.query, sent.header("Authorization")), (BAD, SECRET[7:], header))
        self.assertEqual(await self.order("dead-letters drop", ids=[second]), {"dropped": 1})
        left = (await self.order("dead-letters list", backend="two"))["dead_letters"]
        self.assertEqual([each["id"] for each in left], [third])
        self.assertEqual((await self.order("dead-letters list", backend="one"))["dead_letters"], [])
        for number in (first, "0", "x", "9" * 30, "two:x"):
            self.assertEqual(
                await self.order("dead-letters show", ids=[number]), f"there is no dead letter {number}", number
            )
        self.assertEqual(await self.order("dead-letters show"), "one dead letter can be shown at a time")
        self.assertEqual(await self.order("dead-letters drop", all=True, backend="one"), {"dropped": 0})
        self.assertEqual(await self.order("dead-letters drop", all=True), {"dropped": 1})
        self.assertTrue(service.running)

    async def test_journal(self) -> None:
        """They are listed and shown without credentials, replayed as they were sent at first, and dropped."""
        await self._whole_story(journal=True)

    async def test_memory(self) -> None:
        """The same holds for those in memory."""
        await self._whole_story(journal=False)

    async def test_many(self) -> None:
        """More than a page of them are replayed in order, with progress."""
        self.patch(dead_letters, "PAGE", 2)
        _, bad = await self.with_letters(5)
        bad.script.clear()
        bad.script.append(answer(204))
        self.assertEqual(len((await self.order("dead-letters replay", all=True))["replayed"]), 5)
        self.assertEqual([each["done"] for each in self.progress], [0, 1, 2, 3, 4])
        self.assertEqual((await self.order("dead-letters replay", all=True)), {"replayed": [], "failed": []})

    async def test_backend_down(self) -> None:
        """A backend that is down, paused or removed keeps its letters, and is not asked once for each."""
        service, bad = await self.with_letters(3)
        await self.order("queues pause", backend="two")
        found = await self.order("dead-letters replay", all=True)
        self.assertEqual([each["reason"] for each in found["failed"]], ["the backend is paused"] * 3)
        await self.order("queues resume", backend="two")
        await bad.stop()
        found = await self.order("dead-letters replay", all=True)
        self.assertEqual(len({each["reason"] for each in found["failed"]}), 1)
        self.assertTrue(found["failed"][0]["reason"].startswith("refused: "), found)
        self.assertEqual(self.http(service).senders[1].writes, 4)
        await service.stopService()
        self.operate(self.listener(self.backend()))
        found = await self.order("dead-letters replay", all=True)
        self.assertEqual([each["reason"] for each in found["failed"]], ["the backend is no longer configured"] * 3)

    async def test_gone(self) -> None:
        """A letter that somebody drops during a replay is passed over."""
        held = Hold(answer(204))
        _, bad = await self.with_letters(2)
        bad.script.clear()
        bad.script.append(held)
        asked = Deferred.fromCoroutine(self.order("dead-letters replay", all=True))
        await until(lambda: len(bad.requests) == 3)
        self.assertEqual(await self.order("dead-letters drop", ids=["2"]), {"dropped": 1})
        held.release()
        self.assertEqual(await asked, {"replayed": ["1"], "failed": []})

    async def test_two_listeners(self) -> None:
        """An id that two listeners have needs the listener's name."""
        refusal = answer(500, REFUSAL)
        texts = [self.listener(self.backend(), self.backend(refusal), name=name) for name in ("main", "other")]
        service = self.operate(*texts)
        for number in (0, 1):
            self.assertEqual(await self.write(service, b"/write?db=db", b"\xff\\x" + BAD, listener=number), 204)
        while len((await self.order("dead-letters list"))["dead_letters"]) < 2:
            pass
        words = "dead letter 1 is in more than one listener: add --listener main or other"
        self.assertEqual(await self.order("dead-letters drop", ids=["1"]), words)
        shown = await self.order("dead-letters show", ids=["1"], listener="other")
        self.assertEqual((shown["listener"], shown["base64"][:6]), ("other", "/1x4Y3"))
        self.assertEqual(await self.order("dead-letters drop", ids=["1"], listener="other"), {"dropped": 1})
