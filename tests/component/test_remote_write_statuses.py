"""The remote-write specifications' tables of statuses, for the relay as a receiver and as a sender."""

from __future__ import annotations

from testing.remote_write_case import RemoteWriteTestCase, one_series, post, written
from testing.scripted import Action, answer, until

RETRIED = (429, 500, 502, 503, 504)
NEVER_RETRIED = (400, 401, 403, 406, 409, 410, 413, 415, 422, 431)
HELD = (404, 405)  # a wrong address, which the specifications have among the 4xx that are not retried


def refusing(status: int, *headers: tuple[bytes, bytes]) -> Action:
    """Answer with a status."""
    return answer(status, b"as the test says\n", *headers)


class ReceiverTests(RemoteWriteTestCase):
    """What a sender is told."""

    async def test_one(self) -> None:
        """Each error of the only backend reaches the sender unchanged; any success is 204 without a body."""
        for version in (1, 2):
            for status in (*RETRIED, *NEVER_RETRIED, *HELD):
                relay = self.relay(self.prometheus(self.backend(refusing(status))))
                found = await self.ask(relay, post(one_series(), version=version))
                self.assertEqual((found.status, found.body), (status, b"as the test says\n"))
            for status in (200, 202, 204):
                relay = self.relay(self.prometheus(self.backend(written(status, 1))))
                found = await self.ask(relay, post(one_series(), version=version))
                self.assertEqual((found.status, found.body), (204, b""))

    async def test_retry_after(self) -> None:
        """A sender is told when to come again."""
        for status in (429, 503):
            relay = self.relay(self.prometheus(self.backend(refusing(status, (b"Retry-After", b"7")))))
            found = await self.ask(relay, post(one_series()))
            self.assertEqual((found.status, found.header("Retry-After")), (status, b"7"))

    async def test_no_answer(self) -> None:
        """No answer at all is 503, which a sender retries."""
        relay = self.relay(self.prometheus(await self.refusing_backend()))
        self.assertEqual((await self.ask(relay, post(one_series()))).status, 503)

    async def test_another_takes_it(self) -> None:
        """What a sender should retry is none of its business as long as another backend has taken the request."""
        for status in RETRIED:
            relay = self.relay(
                self.prometheus(self.backend(refusing(status)), "a"), self.prometheus(self.backend(), "b")
            )
            self.assertEqual((await self.ask(relay, post(one_series()))).status, 204)


class SenderTests(RemoteWriteTestCase):
    """What the relay does with an acknowledged request, as the sender of a queue."""

    async def deliver(self, status: int) -> tuple[int, int]:
        """Let a backend answer an acknowledged request so, then 204; return how often it was sent, and dead letters."""
        backend = self.backend(refusing(status), answer(204))
        relay = self.relay(
            self.prometheus(backend, "a", buffer_size_mb=1, max_delay_interval=0.05),
            self.prometheus(self.backend(), "b", buffer_size_mb=1),
            consistency="any",
        )
        self.assertEqual((await self.ask(relay, post(one_series()))).status, 204)
        sender = relay.senders[0]
        await until(lambda: backend.requests and sender.is_idle)
        return len(backend.requests), len(sender.backlog.dead_letters())

    async def test_retried(self) -> None:
        """5xx and 429 are retried."""
        for status in RETRIED:
            self.assertEqual(await self.deliver(status), (2, 0), status)

    async def test_never_retried(self) -> None:
        """Any other 4xx is not retried; the request is a dead letter, but for 409, which means that it is late."""
        for status in NEVER_RETRIED:
            self.assertEqual(await self.deliver(status), (1, int(status != 409)), status)

    async def test_held(self) -> None:
        """404 and 405 of no InfluxDB mean that the address is wrong: the queue waits until that is mended."""
        for status in HELD:
            self.assertEqual(await self.deliver(status), (2, 0), status)
