"""What hostile clients do: each attack is a coroutine for one connection."""

from __future__ import annotations

import asyncio
import gzip
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress

from testing.servers import LOOPBACK

LINE = b"cpu,host=a value=1 1465839830100400200\n"
LIMIT = 25_000_000  # max-body-size, and so what a body of the worst kind has
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[int], Awaitable[None]]


async def _connect(port: int) -> Streams:
    return await asyncio.open_connection(LOOPBACK, port)


def head(*headers: bytes, target: bytes = b"POST /write?db=db") -> bytes:
    """Return the head of a request."""
    return b"\r\n".join([target + b" HTTP/1.1", b"Host: relay", *headers, b"", b""])


async def _drain_until_closed(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def _pour(port: int, head: bytes, piece: bytes) -> None:
    """Send a head, and then the same bytes for as long as they are taken."""
    _, writer = await _connect(port)
    try:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
    finally:
        writer.transport.abort()


async def half_open(port: int) -> None:
    """Connect, and send nothing."""
    reader, writer = await _connect(port)
    try:
        await _drain_until_closed(reader)
    finally:
        writer.transport.abort()


async def slow_head(port: int) -> None:
    """Send a head of which another line comes each second."""
    _, writer = await _connect(port)
    try:
        writer.write(b"POST /write?db=db HTTP/1.1\r\n")
        for number in itertools.count():
            writer.write(b"X-%d: 1\r\n" % number)
            await writer.drain()
            await asyncio.sleep(1)
    finally:
        writer.transport.abort()


async def slow_body(port: int) -> None:
    """Announce a large body, send much of it at once, and the rest as slowly as can be."""
    _, writer = await _connect(port)
    try:
        writer.write(head(b"Content-Length: 20000000") + b"#" * 1_000_000)
        while True:
            await writer.drain()
            await asyncio.sleep(1)
            writer.write(b"#" * 1000)
    finally:
        writer.transport.abort()


async def endless_head(port: int) -> None:
    """Send headers without end."""
    await _pour(port, b"POST /write?db=db HTTP/1.1\r\n", b"X-A: b\r\n" * 1000)


async def endless_line(port: int) -> None:
    """Send one header without end."""
    await _pour(port, b"POST /write?db=db HTTP/1.1\r\nX-A: ", b"b" * 65536)


async def endless_chunks(port: int) -> None:
    """Send a body in chunks without end."""
    await _pour(port, head(b"Transfer-Encoding: chunked"), (b"400\r\n" + b"#" * 1024 + b"\r\n") * 64)


async def endless_tiny_chunks(port: int) -> None:
    """Send a body without end, byte by byte."""
    await _pour(port, head(b"Transfer-Encoding: chunked"), b"1\r\n#\r\n" * 10000)


async def endless_extension(port: int) -> None:
    """Send chunks whose extensions are longer than they are."""
    await _pour(port, head(b"Transfer-Encoding: chunked"), (b"1;" + b"a=b;" * 200 + b"\r\n#\r\n") * 100)


async def _post(port: int, body: bytes, *headers: bytes) -> None:
    reader, writer = await _connect(port)
    try:
        for _ in range(20):
            writer.write(head(b"Content-Length: %d" % len(body), *headers) + body)
            await writer.drain()
            answer = await reader.readuntil(b"\r\n\r\n")
            if b"\r\nConnection: close" in answer:
                break
            length = answer.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or b"0"))
    finally:
        writer.transport.abort()


def _lying(packed: bytes) -> bytes:
    return packed[:-4] + b"\1\0\0\0"


_bombs: dict[str, bytes] = {}


def _bomb(kind: str) -> bytes:
    """Return a compressed body: too large for the limit, the same with a trailer that denies it, or just within it."""
    if not _bombs:
        over = gzip.compress(LINE * (2 * LIMIT // len(LINE)), 9)
        _bombs["over"] = over
        _bombs["lying"] = _lying(over)
        _bombs["within"] = gzip.compress(b"#" * (LIMIT - 1000) + b"\n", 9)
    return _bombs[kind]


async def bomb(port: int) -> None:
    """Post gzip that unpacks to 50 MB."""
    await _post(port, _bomb("over"), b"Content-Encoding: gzip")


async def lying_bomb(port: int) -> None:
    """Post the same, but its trailer says that there is one byte in it."""
    await _post(port, _bomb("lying"), b"Content-Encoding: gzip")


async def largest_bomb(port: int) -> None:
    """Post gzip that unpacks to a comment of just the allowed size."""
    await _post(port, _bomb("within"), b"Content-Encoding: gzip")


_LINES = {
    "bad": b"cpu,host= value=1\n",
    "odd": b'cpu,a\\,b=c\\ d s="x\\"y, =z",v=1i\n',
    "blank": b"# \n",
    "wide": b"cpu " + b"f=1," * 12000 + b'g="a\\"b\n',
}


def _lines(kind: str) -> bytes:
    line = _LINES[kind]
    return line * (LIMIT // len(line))


async def bad_lines(port: int) -> None:
    """Post 25 MB of lines that are wrong."""
    await _post(port, _lines("bad"))


async def odd_lines(port: int) -> None:
    """Post 25 MB of lines that are right, odd, and have no timestamps."""
    await _post(port, _lines("odd"))


async def blank_lines(port: int) -> None:
    """Post 25 MB of comments."""
    await _post(port, _lines("blank"))


async def wide_lines(port: int) -> None:
    """Post 25 MB of lines with 12000 fields each, the last of them wrong."""
    await _post(port, _lines("wide"))


async def unread_answers(port: int) -> None:
    """Ask again and again, and read no answer."""
    _, writer = await _connect(port)
    with suppress(AttributeError):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        while True:
            writer.write(head(target=b"GET /ping?verbose=true") * 100)
            await writer.drain()
    finally:
        writer.transport.abort()


async def churn(port: int) -> None:
    """Connect, ask once, and go."""
    reader, writer = await _connect(port)
    try:
        writer.write(head(target=b"GET /ping"))
        await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()


async def garbage(port: int) -> None:
    """Connect, and send what is no HTTP."""
    reader, writer = await _connect(port)
    try:
        writer.write(b"\x16\x03\x01" + b"\r\n" * 30000)
        await _drain_until_closed(reader)
    finally:
        writer.transport.abort()


ATTACKS: dict[str, tuple[Attack, int]] = {
    "half-open connections": (half_open, 2000),
    "slow heads": (slow_head, 2000),
    "slow large bodies": (slow_body, 200),
    "endless heads": (endless_head, 50),
    "endless header lines": (endless_line, 50),
    "endless chunks": (endless_chunks, 50),
    "endless chunks of a byte": (endless_tiny_chunks, 50),
    "endless chunk extensions": (endless_extension, 50),
    "gzip bombs": (bomb, 20),
    "gzip bombs that lie": (lying_bomb, 20),
    "gzip bombs within limits": (largest_bomb, 20),
    "25 MB of bad lines": (bad_lines, 10),
    "25 MB of odd lines": (odd_lines, 10),
    "25 MB of comments": (blank_lines, 10),
    "25 MB of wide lines": (wide_lines, 10),
    "unread answers": (unread_answers, 100),
    "connections for one request": (churn, 50),
    "garbage": (garbage, 50),
}
FOR_WRITES = {name for name in ATTACKS if name.startswith(("25 MB", "gzip"))}
"""At the listener for operators these are large bodies like others."""


async def attack(name: str, port: int, count: int) -> None:
    """Keep so many connections at it, until we are ended."""
    attack, _ = ATTACKS[name]

    async def again_and_again() -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await attack(port)
            await asyncio.sleep(0.001)

    await asyncio.gather(*(again_and_again() for _ in range(count)))
