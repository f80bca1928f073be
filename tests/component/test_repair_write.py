"""What the relay does with the lines of a repair: they go through the queue of one backend."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from influxrelay.operations import repair
from testing.admin import OperatedCase
from testing.scripted import Hold, ScriptedBackend, answer, request, until

LINES = 'm f=1i 5\nm s="a\nb" 6'


class WriteTests(OperatedCase):
    """Lines for the backend ``two``, from ``one``."""

    async def repair(self, backend: str = "two", **fields: str) -> Any:
        """Submit the lines, and return the outcome, or the error."""
        fields = {
            "database": "d b",
            "retention_policy": "r&p",
            "lines": LINES,
            "source": "one",
            "await_source": "yes",
            **fields,
        }
        found = await self.order("repair write", backend=backend, write=fields)
        return (found["outcome"], found["message"]) if isinstance(found, dict) else found

    async def refused_by(self, backend: ScriptedBackend) -> Any:
        """Submit the lines to another backend than the usual one."""
        self.operate(self.listener(self.backend(), backend))
        return await self.repair()

    async def test_taken(self) -> None:
        """They get to one backend, as they are, into their database and retention policy, with nanoseconds."""
        one, two = self.backend(), self.backend()
        self.operate(self.listener(one, two))
        self.assertEqual(await self.repair(authorization="Basic eDp5"), ("taken", ""))
        (received,) = two.requests
        self.assertEqual(received.body, LINES.encode())
        self.assertEqual((received.path, received.query), (b"/write", b"db=d+b&rp=r%26p&precision=ns"))
        self.assertEqual(received.header("Authorization"), b"Basic eDp5")
        self.assertEqual(one.requests, [])

    async def test_not_taken(self) -> None:
        """An answer other than a 2xx is passed on, and nothing is kept for later."""
        error = b'{"error":"partial write: field type conflict dropped=1"}\n'
        outcome, message = await self.refused_by(self.backend(answer(400, error)))
        self.assertEqual((outcome, "field type conflict" in message), ("refused", True))
        row = await self.row("two")
        self.assertEqual((row["writes"], row["dead_letters"], row["drops"]), (0, 0, []))

    async def test_denied(self) -> None:
        """Credentials that the backend does not accept are told."""
        outcome, _ = await self.refused_by(self.backend(answer(401, b'{"error":"authorization failed"}\n')))
        self.assertEqual(outcome, "denied")

    async def test_trouble(self) -> None:
        """A backend in trouble cannot take them now, and gets them from nobody later."""
        two = self.backend(answer(503), answer(204))
        outcome, message = await self.refused_by(two)
        self.assertEqual((outcome, message[:4]), ("not now", "503:"))

    async def test_outdated(self) -> None:
        """Lines that were read before a change was executed are not taken: it may have removed what they say."""
        done = answer(200, b'{"results":[{"statement_id":0}]}\n')
        one, two = self.backend(done, done), self.backend(done, done)
        service = self.operate(self.listener(one, two))
        asked = {"write": {"source": "one"}}
        mark = (await self.order("repair mark", backend="two", **asked))["mark"]
        self.assertEqual((await self.order("repair mark", backend="two", **asked))["mark"], mark)
        self.assertEqual((await self.repair(mark=mark))[0], "taken")
        await self.ask(self.http(service), request(b"/query?db=d&consistency=all&q=DELETE+FROM+m"))
        await until(lambda: all(not len(each.queues) for each in self.http(service).senders))
        self.assertEqual((await self.repair(mark=mark))[0], "outdated")
        mark = (await self.order("repair mark", backend="two", **asked))["mark"]
        self.assertEqual((await self.repair(mark=mark))[0], "taken")

    async def test_missed(self) -> None:
        """The changes that remove something are told which a backend has refused, with the time and the databases."""
        done = answer(200, b'{"results":[{"statement_id":0}]}\n')
        refused = answer(200, b'{"results":[{"statement_id":0,"error":"no"}]}\n')
        holds = [Hold(refused), Hold(refused)]  # until the other one has accepted
        service = self.operate(self.listener(self.backend(done, done), self.backend(*holds)))
        for statement, hold in zip((b"DELETE+FROM+m", b"CREATE+USER+u+WITH+PASSWORD+'x'"), holds, strict=True):
            await self.ask(self.http(service), request(b"/query?db=d&consistency=one&q=" + statement))
            hold.release()
        await until(lambda: self.http(service).senders[1].change_outcomes["refused"] == 2)
        (found,) = (await self.order("repair missed"))["missed"]
        self.assertEqual((found["backend"], found["databases"], found["statement"]), ("two", ["d"], "DELETE FROM m"))
        self.assertEqual(found["listener"], "main")

    async def test_paused(self) -> None:
        """A paused backend gets none, and one that is not there is no backend."""
        two = self.backend()
        self.operate(self.listener(self.backend(), two))
        await self.order("queues pause", backend="two")
        self.assertEqual(await self.repair(), ("paused", "the backend is paused"))
        self.assertEqual(await self.repair("three"), "there is no backend three; there is: one, two")
        self.assertEqual(two.requests, [])

    async def test_unknown_source(self) -> None:
        """Lines from a backend that the relay does not have are not taken: a DELETE may wait for it elsewhere."""
        two = self.backend()
        self.operate(self.listener(self.backend(), two))
        self.assertEqual(await self.repair(source="three"), "there is no backend three; there is: one, two")
        found = await self.order("repair mark", backend="two", write={"source": "three"})
        self.assertEqual(found, "there is no backend three; there is: one, two")
        self.assertEqual(two.requests, [])

    async def test_change(self) -> None:
        """While a change waits for one of both backends they are not taken: they could bring back what it removes."""
        done = answer(200, b'{"results":[{"statement_id":0}]}\n')
        one, two = self.backend(done), self.backend(done)
        service = self.operate(self.listener(one, two))
        await self.order("queues pause", backend="one")
        target = b"/query?db=d&q=DELETE+FROM+m"
        self.assertEqual((await self.ask(self.http(service), request(target))).status, 200)
        outcome, message = await self.repair()
        self.assertEqual(outcome, "not now")
        self.assertRegex(message, "^a change waits for (one|two)$")
        self.assertEqual([each.path for each in two.requests if each.path == b"/write"], [])

    async def test_source_behind(self) -> None:
        """The answer comes when the source has what was accepted before; if that takes too long, it is no."""
        one, two = self.backend(hold := Hold(answer(204))), self.backend()
        service = self.operate(self.listener(one, two))
        self.assertEqual(await self.write(service), 204)
        await until(lambda: one.requests)
        outcome = Deferred.fromCoroutine(self.repair())
        await until(lambda: len(two.requests) == 2)
        sender = self.http(service).senders[1]
        await until(lambda: not sender.requests.in_flight)
        self.assertFalse(outcome.called)
        self.patch(repair, "PATIENCE", 0.0)
        self.assertEqual(await self.repair(), ("not now", "one is behind, and may have older values"))
        hold.release()
        self.assertEqual(await outcome, ("taken", ""))
