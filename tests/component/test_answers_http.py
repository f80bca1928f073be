"""The settle rule over real sockets: what a client is answered, for what the backends answer in which order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore

from influxrelay.config.settings import HTTPOutputConfig
from influxrelay.listeners.http import HTTPService
from testing.scripted import (
    LINE,
    Action,
    Answer,
    Hold,
    RelayTestCase,
    ScriptedBackend,
    answer,
    garbage,
    hang,
    request,
    reset,
    together,
    until,
)

_BRIEF = 0.8  # seconds; the timeout of a backend that is meant to time out, after the write has reached it
UNABLE = (503, b'{"error":"unable to write points"}\n', b"application/json", b"unable to write points")


def _error(status: int) -> Action:
    text = b"words of %d" % status
    return answer(
        status,
        b'{"error":"%b"}\n' % text,
        (b"Content-Type", b"application/json; of=%d" % status),
        (b"X-Influxdb-Error", text),
    )


ACTIONS: dict[str, Action] = {
    "200": answer(200, b"fine"),
    "204": answer(204),
    **{str(status): _error(status) for status in (302, 400, 401, 404, 408, 413, 425, 429, 500, 503)},
    "reset": reset,
    "garbage": garbage(),
    "timeout": hang,
}
KINDS = (*ACTIONS, "refused")
_NOT_NOW = ("408", "425", "429")


def _is_decisive(kind: str) -> bool:
    return kind[0] in "24" and kind not in _NOT_NOW


def acceptable(kinds: Sequence[str]) -> list[tuple[int, bytes, bytes | None, bytes | None]]:
    """Return the answers that the contract allows when the backends answer in this order."""
    decisive = [kind for kind in kinds if _is_decisive(kind)][:1]
    if decisive and decisive[0].startswith("2"):
        return [(204, b"", None, None)]
    shown = decisive or [kind for kind in kinds if kind.startswith("5")] or [kind for kind in kinds if kind in _NOT_NOW]
    return [
        (
            int(kind),
            b'{"error":"words of %b"}\n' % kind.encode(),
            b"application/json; of=" + kind.encode(),
            b"words of " + kind.encode(),
        )
        for kind in shown
    ] or [UNABLE]


def summary(found: Answer) -> tuple[int, bytes, bytes | None, bytes | None]:
    """Return what a settled answer is compared by."""
    return found.status, found.body, found.header("Content-Type"), found.header("X-Influxdb-Error")


class SettleTableTests(RelayTestCase):
    """The first table of the contract's section 1."""

    async def _backend(self, kind: str) -> tuple[ScriptedBackend, Hold]:
        if kind == "refused":
            return await self.refusing_backend(), Hold(hang)
        hold = Hold(ACTIONS[kind])
        return self.backend(hold), hold

    def _output(self, number: int, kind: str, backend: ScriptedBackend, brief: float) -> HTTPOutputConfig:
        timeout = brief * (number + 1) if kind == "timeout" else 60.0
        return self.output(backend, f"{number}-{kind}", timeout=timeout)

    async def _settle(self, *kinds: str, brief: float = _BRIEF) -> str:
        """Have the backends answer one after the other; return what is wrong, or nothing.

        On a busy machine a brief timeout can end before the write has reached the backend: then it has to be longer.
        """
        made = [await self._backend(kind) for kind in kinds]
        relay = self.relay(
            *[
                self._output(number, kind, backend, brief)
                for number, (kind, (backend, _)) in enumerate(zip(kinds, made, strict=True))
            ]
        )
        client = await self.client(relay)
        client.send(request())
        for kind, (backend, _), sender in zip(kinds, made, relay.senders, strict=True):
            if kind != "refused":
                await until(lambda: backend.requests or sender.requests.failures, "the arrival of the write")
        if not all(backend.requests for kind, (backend, _) in zip(kinds, made, strict=True) if kind == "timeout"):
            client.vanish()
            await self._end_all(relay, made)
            return await self._settle(*kinds, brief=2 * brief)
        found = None
        for position, (kind, (_, hold)) in enumerate(zip(kinds, made, strict=True)):
            hold.release()
            sender = relay.senders[position]
            await until(lambda: sender.is_idle, f"the end of {kind}")
            if found is None and any(map(_is_decisive, kinds[: position + 1])):
                found = await client.answer()  # at once: the others still wait to be released
        found = found or await client.answer()
        client.vanish()
        problems = []
        if summary(found) not in acceptable(kinds):
            problems.append(f"{kinds}: {summary(found)}, not one of {acceptable(kinds)}")
        for kind, (backend, _) in zip(kinds, made, strict=True):
            if kind != "refused" and [each.body for each in backend.requests] != [LINE]:
                problems.append(f"{kinds}: {kind} got {backend.requests}")
        await self._end_all(relay, made)
        return "; ".join(problems)

    async def _end_all(self, relay: HTTPService, made: Sequence[tuple[ScriptedBackend, Hold]]) -> None:
        await self.stop(relay)
        for backend, _ in made:
            await backend.stop()

    async def _settle_all(self, rows: Sequence[Sequence[str]]) -> None:
        some = DeferredSemaphore(16)
        problems = await together(*[self._one_of(some, row) for row in rows])
        self.assertEqual([problem for problem in problems if problem], [])

    async def _one_of(self, some: DeferredSemaphore, row: Sequence[str]) -> Any:
        return await some.run(lambda: Deferred.fromCoroutine(self._settle(*row)))

    async def test_one_backend(self) -> None:
        """One backend's answer of any kind becomes what the table says."""
        await self._settle_all([(kind,) for kind in KINDS])

    async def test_two_backends(self) -> None:
        """Two backends' answers settle in each order as the table says, at once if the first is decisive."""
        await self._settle_all(list(product(KINDS, repeat=2)))

    async def test_three_backends(self) -> None:
        """Three backends' answers settle in each order as the table says."""
        triples = [
            ("204", "400", "500"),
            ("204", "refused", "reset"),
            ("204", "429", "503"),
            ("204", "302", "timeout"),
            ("400", "500", "refused"),
            ("400", "404", "429"),
            ("401", "garbage", "reset"),
            ("500", "503", "429"),
            ("503", "refused", "timeout"),
            ("500", "302", "garbage"),
            ("429", "refused", "reset"),
            ("408", "425", "429"),
            ("refused", "reset", "garbage"),
        ]
        rows = [order for triple in triples for order in permutations(triple)]
        await self._settle_all([*rows, ("302",) * 3, ("500",) * 3, ("204",) * 3, ("400",) * 3])


class AtOnceTests(RelayTestCase):
    """An answer that settles a write does not wait for slower backends, and they still get the write."""

    async def _slow_and(self, action: Action) -> tuple[Answer, ScriptedBackend]:
        slow, other = self.backend(hang), self.backend(action)
        relay = self.relay(slow, other)
        client = await self.client(relay)
        return await client.ask(request()), slow

    async def test_success(self) -> None:
        """A 2xx of the second backend is shown while the first one hangs."""
        found, slow = await self._slow_and(answer(204))
        self.assertEqual(found.status, 204)
        await until(lambda: slow.requests)
        self.assertEqual(slow.requests[0].body, LINE)

    async def test_refusal(self) -> None:
        """A 4xx of the second backend is shown while the first one hangs."""
        found, slow = await self._slow_and(ACTIONS["404"])
        self.assertEqual(summary(found), acceptable(["404"])[0])
        await until(lambda: slow.requests)
        self.assertEqual(slow.requests[0].body, LINE)

    async def test_backend_that_reads_nothing(self) -> None:
        """A backend that accepts connections and never reads does not keep a client waiting."""
        slow, other = self.backend(), self.backend()
        slow.deaf = True
        relay = self.relay(slow, other)
        body = LINE * 100_000
        self.assertEqual((await self.ask(relay, request(body=body))).status, 204)
        self.assertEqual(other.requests[0].body, body)

    async def test_connect_reset(self) -> None:
        """A backend that breaks connections as soon as they are there has not answered."""
        backend = self.backend()
        backend.rejects = True
        self.assert_unable(await self.ask(self.relay(backend), request()))

    async def test_reset_within_the_request(self) -> None:
        """A backend that breaks off while it is sent a large write has not answered."""
        backend = self.backend()
        backend.early = reset
        relay = self.relay(backend)
        self.assert_unable(await self.ask(relay, request(body=LINE * 100_000)))
        self.assertEqual(dict(relay.senders[0].clients.failures), {"reset": 1})

    async def test_all_hang(self) -> None:
        """When all backends time out, the client is told after the longest timeout."""
        outputs = [self.output(self.backend(hang), str(timeout), timeout=timeout) for timeout in (0.1, 0.2)]
        relay = self.relay(*outputs)
        self.assert_unable(await self.ask(relay, request()))
        self.assertEqual([dict(sender.clients.failures) for sender in relay.senders], [{"timeout": 1}] * 2)

    async def test_recovery(self) -> None:
        """A backend that has failed gets the next write."""
        backend = self.backend(ACTIONS["503"], answer(204))
        client = await self.client(self.relay(backend))
        statuses = [(await client.ask(request())).status for _ in range(3)]
        self.assertEqual(statuses, [503, 204, 204])

    async def test_backend_that_comes_back(self) -> None:
        """A backend whose port was closed gets writes again when it is open."""
        backend = self.backend()
        client = await self.client(self.relay(backend))
        self.assertEqual((await client.ask(request())).status, 204)
        await backend.stop()
        self.assert_unable(await client.ask(request()))
        backend.listen()
        self.assertEqual((await client.ask(request())).status, 204)
