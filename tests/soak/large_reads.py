"""Somebody who reads large answers slowly, so that many of them are under way when a part fails."""

from __future__ import annotations

import gzip
import http.client
import itertools
import random
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlencode

from testing.servers import LOOPBACK, send
from testing.sites import DATABASE
from tests.soak.dashboard import Tally

ROWS = 300_000  # some 36 MB: more than the buffers on the way hold
MEASUREMENT = "large"
SOURCE = "127.9.0.2"
_BATCH = 10_000
_PIECE = 64 * 1024  # bytes that are read at a time
_PAUSE = 0.005  # seconds between two pieces
_KINDS: tuple[tuple[dict[str, str], dict[str, str]], ...] = (
    ({"chunked": "true", "chunk_size": "1000"}, {}),
    ({}, {}),
    ({"chunked": "true", "chunk_size": "1000"}, {"Accept-Encoding": "gzip"}),
)


class LargeReads(threading.Thread):
    """Asks for the same points, chunked, whole and packed, and counts what comes.

    :param port: HAProxy's.
    :param tally: returns where to count.
    """

    def __init__(self, port: int, tally: Callable[[], Tally]) -> None:
        super().__init__(name="large reads", daemon=True)
        self.over = threading.Event()
        self._port, self._tally = port, tally

    def write(self) -> None:
        """Write the points."""
        for start in range(0, ROWS, _BATCH):
            lines = "".join(
                f'{MEASUREMENT} s="{random.randbytes(50).hex()}" {number + 1}\n'
                for number in range(start, start + _BATCH)
            )
            status, words = send("POST", f"http://{LOOPBACK}:{self._port}/write?db={DATABASE}", lines.encode())
            assert status == 204, words

    def run(self) -> None:
        """Ask until told to end."""
        for parameters, headers in itertools.cycle(_KINDS):
            if self.over.wait(0.1):
                break
            try:
                self._ask(parameters, headers)
            except (http.client.HTTPException, OSError):
                self._tally().large["broken"] += 1

    def _ask(self, parameters: dict[str, str], headers: dict[str, str]) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=30, source_address=(SOURCE, 0))
        try:
            values = {"db": DATABASE, "q": f"SELECT s FROM {MEASUREMENT}", "epoch": "ns", **parameters}
            connection.connect()
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
            connection.request("GET", f"/query?{urlencode(values)}", headers=headers)
            answer = connection.getresponse()
            body = bytearray()
            while piece := answer.read(_PIECE):
                body += piece
                self.over.wait(_PAUSE)
            if answer.status == http.client.OK:
                problem = check(bytes(body), answer.getheader("Content-Encoding", ""))
                self._tally().large["wrong" if problem else "complete"] += 1
                self._tally().wrong += [problem] if problem else []
            else:
                self._tally().large[str(answer.status)] += 1
        finally:
            connection.close()

    def end(self) -> None:
        """Let it end."""
        self.over.set()
        self.join()


def check(body: bytes, encoding: str) -> str:
    """Return what is wrong with an answer that looks complete; empty if it is."""
    try:
        text = gzip.decompress(body) if encoding == "gzip" else body
    except (OSError, EOFError) as error:
        return f"a complete answer cannot be unpacked: {error!r}"
    rows = text.count(b'"values":[[') + text.count(b"],[")
    return "" if rows == ROWS else f"a complete answer has {rows} of {ROWS} rows, and ends with {text[-60:]!r}"
