"""Answers every write with 204 and counts it: ``python -m bench.sink``.

A sink must cost less than any contender. This one takes a request with one ``recv`` into one buffer, and knows the
heads that it has seen before. ``GET /counts`` returns how often each kind of body came, as JSON; any other request is
answered with 204 and not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import ssl
from collections import Counter
from functools import partial
from typing import ClassVar, cast

from uvloop import new_event_loop

_LOOPBACK = "127.0.0.1"
_BUFFER_SIZE = 1 << 20
_HEADS = 1000  # kept; more come only from a relay that gives each request a header of its own
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_ENCODING = re.compile(rb"(?i)\r\ncontent-encoding: *([!-~]+)")
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
_LENGTH_REQUIRED = b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\n\r\n"


class Tally:
    """What one port has received."""

    def __init__(self) -> None:
        self._lengths: dict[bytes, int] = {}
        self._heads: Counter[bytes] = Counter()
        self._bodies: Counter[str] = Counter()

    def add(self, head: bytes) -> int:
        """Count a request whose head is complete, and return the length of its body; -1 if it is not known."""
        length = self._lengths.get(head)
        if length is None:
            if len(self._lengths) >= _HEADS:
                self._fold()
            found = _LENGTH.search(head)
            length = int(found[1]) if found else -1 if head.startswith(b"POST ") else 0
            self._lengths[head] = length
        self._heads[head] += 1
        return length

    def bodies(self) -> dict[str, int]:
        """Return the number of writes by "size encoding"."""
        self._fold()
        return dict(self._bodies)

    def _fold(self) -> None:
        for head, count in self._heads.items():
            if head.startswith(b"POST "):
                encoding = _ENCODING.search(head)
                name = encoding[1].decode().lower() if encoding else "identity"
                self._bodies[f"{self._lengths[head]} {name}"] += count
        self._heads.clear()
        self._lengths.clear()


class Connection(asyncio.BufferedProtocol):
    """A connection of a relay, or of the load generator."""

    # One for all connections: buffer_updated copies what it does not use up.
    _buffer: ClassVar = bytearray(_BUFFER_SIZE)

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._head = b""  # the beginning of a head whose end has not come yet
        self._missing = 0  # bytes of the current body
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 (the interface's)
        """Return the buffer to receive into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was received: most often a whole request, or a piece of a body."""
        if nbytes < self._missing:
            self._missing -= nbytes
        elif self._head:
            data = self._head + self._buffer[:nbytes]
            self._head = b""
            self._requests(data, 0, len(data))
        else:
            start = self._missing
            if start:
                self._end_of_body()
            self._requests(self._buffer, start, nbytes)

    def _requests(self, data: bytes | bytearray, start: int, end: int) -> None:
        """Take all requests between two offsets, the last of which may be incomplete."""
        while start < end:
            body = data.find(_END, start, end) + len(_END)
            if body < len(_END):
                self._head = bytes(data[start:end])
                return
            head = bytes(data[start:body])
            length = self._tally.add(head)
            self._answer = _NO_CONTENT
            if length < 0:
                self._answer, length = _LENGTH_REQUIRED, 0
            elif head.startswith(b"GET /counts "):
                counts = json.dumps(self._tally.bodies()).encode()
                self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(counts), counts)
            start = body + length
            self._missing = max(start - end, 0)
            if not self._missing:
                self._end_of_body()

    def _end_of_body(self) -> None:
        self._missing = 0
        self._transport.write(self._answer)


async def _serve(ports: list[int], tls_ports: list[int], certificate: str) -> None:
    loop = asyncio.get_running_loop()
    tallies = [Tally() for _ in ports]  # a sink and the same sink behind TLS count together
    servers = [
        await loop.create_server(partial(Connection, tally), _LOOPBACK, port, backlog=1024)
        for tally, port in zip(tallies, ports, strict=True)
    ]
    if tls_ports:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        servers += [
            await loop.create_server(partial(Connection, tally), _LOOPBACK, port, ssl=context, backlog=1024)
            for tally, port in zip(tallies, tls_ports, strict=True)
        ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    """Serve until the process is killed."""
    parser = argparse.ArgumentParser(prog="python -m bench.sink", description=__doc__)
    parser.add_argument("ports", nargs="+", type=int)
    parser.add_argument("--tls-ports", nargs="*", type=int, default=[], help="as many, for the same sinks behind TLS")
    parser.add_argument("--certificate", default="", help="a PEM file with key and certificate")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(options.ports, options.tls_ports, options.certificate))


if __name__ == "__main__":
    main()
