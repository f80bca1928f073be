"""The clients and backends of the soak of reloads."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import random
import threading
import time

import attrs

from testing.servers import LOOPBACK

PATIENCE = 60.0  # seconds for one answer, of which the longest is reported


class Recorder:
    """A server that takes every write of those it knows, after a moment, and notes what it gets.

    :ivar seen: the numbers of each client's writes, in the order in which they came.
    :ivar strangers: how many requests had credentials that it does not know.
    """

    def __init__(self, rng: random.Random) -> None:
        self.seen: dict[int, list[int]] = {}
        self.known = {""}
        self.strangers = 0
        self.port = 0
        self._rng = rng

    async def listen(self) -> None:
        """Open the port."""
        server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self._note(head, body)
                await asyncio.sleep(self._rng.choice((0.0, 0.0, 0.001, 0.003, 0.02)))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    def _note(self, head: str, body: bytes) -> None:
        given = [line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("authorization: ")]
        if "".join(given) not in self.known:
            self.strangers += 1
        for line in body.splitlines():
            client, _, number = line.decode().removeprefix("m,c=").partition(" v=")
            self.seen.setdefault(int(client), []).append(int(number.partition("i")[0]))


@attrs.define
class Told:
    """A write that was acknowledged."""

    number: int
    began: float
    ended: float


class Writer(threading.Thread):
    """A client that writes one number after the other on one connection.

    :ivar told: its acknowledged writes.
    :ivar failures: what else it was told, in words.
    """

    def __init__(self, number: int, port: int) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.told: list[Told] = []
        self.failures: list[str] = []
        self.longest = 0.0
        self._port = port
        self._ending = threading.Event()

    def stop(self) -> None:
        """Let it end after its present write."""
        self._ending.set()

    def run(self) -> None:
        """Write until it is told to stop."""
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=PATIENCE)
        number = 0
        while not self._ending.is_set():
            number += 1
            began = time.monotonic()
            try:
                body = b"m,c=%d v=%di %d\n" % (self.number, number, number)
                connection.request("POST", f"/write?db=client{self.number}", body)
                answer = connection.getresponse()
                words = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"write {number}: {error!r}")
                connection.close()
                continue
            ended = time.monotonic()
            self.longest = max(self.longest, ended - began)
            if answer.status == http.HTTPStatus.NO_CONTENT:
                self.told.append(Told(number, began, ended))
            else:
                self.failures.append(f"write {number}: {answer.status} {words.decode()}")
        connection.close()
