"""A proxy before a backend, which breaks connections and answers in many ways."""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections import Counter
from typing import Any

from testing.servers import LOOPBACK, free_port

TIMEOUT = 1.0  # the backends', in the relay's configuration
POISONED = "two"  # the backend that refuses poison
# What a proxy does to a request. "refuse" and "half-open" are done to connections, and so only as moods.
FAULTS = (
    "reset",
    "reset-after",
    "cut-after",
    "hang",
    "hang-after",
    "500",
    "503",
    "429",
    "garbage",
    "404",
    "delay",
)
MOODS = ("well",) * 5 + ("refuse", "refuse", "half-open", "mixed", "mixed", *FAULTS)
CANNED = {
    "500": (500, "", '{"error":"engine is closed"}'),
    "503": (503, "Retry-After: 1\r\n", '{"error":"timeout"}'),
    "429": (429, "", '{"error":"too many"}'),
    "404": (404, "", '{"error":"database not found: \\"a\\""}'),
    "400": (400, "", '{"error":"unable to parse: poison"}'),
}


class Proxies:
    """A thread with an asyncio loop, in which the proxies live."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine there, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def stop(self) -> None:
        """End the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class FaultProxy:
    """Stands in front of one server and takes whole requests, to pass them on or not.

    What it has not passed on when the relay gives up the connection it never passes on: a request that arrives after
    its sender has given it up and gone on would be a fault that no sender can do anything about.

    :ivar port: the relay's way in.
    :ivar done: how often which fault was done.
    """

    def __init__(self, name: str, proxies: Proxies, upstream: int, rng: random.Random) -> None:
        self.name = name
        self.port = free_port()
        self.mood = "well"
        self.done: Counter[str] = Counter()
        self._proxies = proxies
        self._upstream = upstream
        self._rng = rng
        self._share = 1.0  # of the requests that the mood is for
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    def feel(self, mood: str, share: float = 1.0) -> None:
        """Change the mood, now; who hangs in the old one is reset."""
        self._proxies.run(self._feel(mood, share))

    async def _feel(self, mood: str, share: float) -> None:
        self.mood, self._share = mood, share
        self._changed.set()
        self._changed = asyncio.Event()
        if mood in ("refuse", "end"):
            if self._server is not None:
                self._server.close()
                self._server = None
            for writer in list(self._writers):
                writer.transport.abort()
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port, limit=2**20)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                if self.mood == "half-open":
                    self.done["half-open"] += 1
                    writer.transport.pause_reading()  # type: ignore[attr-defined]
                    await self._changed.wait()
                    break
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                body = await reader.readexactly(int(found[1]) if found else 0)
                if self.mood != "half-open":  # it was read too soon: it waits for its mood's end like the rest
                    await self._treat(head, body, reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _treat(
        self, head: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        fault = self._choose_fault()
        if fault == "hang":
            await self._hang(reader)
        elif fault in CANNED:
            writer.write(_canned(fault))
        elif fault == "garbage":
            writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
            raise ConnectionAbortedError
        elif fault != "reset":
            if fault == "delay":
                await asyncio.sleep(self._rng.uniform(0.01, TIMEOUT / 2))
                if reader.at_eof():
                    raise ConnectionAbortedError
            answer = _canned("400")
            if self.name != POISONED or b"poison" not in body:
                answer = await self._ask(head, body)
            await self._give_back(fault, answer, reader, writer)
        else:
            raise ConnectionAbortedError

    def _choose_fault(self) -> str:
        rng, fault = self._rng, self.mood
        if fault == "mixed":
            fault = rng.choice(FAULTS)
        if rng.random() > self._share:
            fault = "well"
        if fault != "well":
            self.done[fault] += 1
        return fault

    async def _give_back(
        self, fault: str, answer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Do with the server's answer what comes to mind: the server has done its work."""
        if fault == "reset-after":
            raise ConnectionAbortedError
        if fault == "cut-after":
            writer.write(answer[: self._rng.randrange(1, len(answer))])
            await asyncio.sleep(0.01)
            raise ConnectionAbortedError
        if fault == "hang-after":
            await self._hang(reader)
        writer.write(answer)

    async def _hang(self, reader: asyncio.StreamReader) -> None:
        """Wait until somebody loses patience, and break the connection."""
        waits = [asyncio.ensure_future(each) for each in (self._changed.wait(), reader.read(1))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        raise ConnectionAbortedError

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(LOOPBACK, self._upstream)
        try:
            writer.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
            answer = await reader.read()
        finally:
            writer.transport.abort()
        if not answer:
            raise ConnectionAbortedError
        return answer.replace(b"Connection: close\r\n", b"", 1)


def _canned(fault: str) -> bytes:
    status, header, body = CANNED[fault]
    return f"HTTP/1.1 {status} Whatever\r\n{header}Content-Length: {len(body)}\r\n\r\n{body}".encode()
