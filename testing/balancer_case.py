"""Scripted relays and servers behind the load balancers' files."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import LOOPBACK, Server, free_port

LIMIT = 60.0  # seconds that anything may take on a machine that has other things to do
NAMES = ("influx1", "influx2")


def wait_until(holds: Callable[[], Any], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + LIMIT
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so in {LIMIT:g} s: {what}")
        time.sleep(0.02)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_GET(self) -> None:
        """Answer as the script says."""
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        path = self.path.partition("?")[0]
        status = self.server.answers.get(path, 404)
        with self.server.lock:
            self.server.seen[path] += 1
        if status == CLOSE or self.server.over.is_set():
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if status == HANG:
            self.server.over.wait(LIMIT)
            self.close_connection = True
            return
        if status == CUT:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nfirst\r\n")
            self.close_connection = True
            return
        body = b"" if status == 204 else json.dumps({"by": self.server.name}).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Be silent."""


CLOSE, HANG, CUT = -1, -2, -3


class Scripted(ThreadingHTTPServer):
    """A relay, or a server, that answers what it is told to, or breaks the connection, hangs, or cuts its answer.

    :ivar answers: the status by path.
    :ivar seen: how many requests have come, by path.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        super().__init__((LOOPBACK, self.port), _Handler)
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.seen: Counter[str] = Counter()
        self.answers = {"/health": 200, "/ping": 204, "/write": 204, "/query": 200, "/health/queries": 200}
        self.answers.update({f"/health/backends/{each}": 200 for each in NAMES})
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that break: HAProxy's checks end so."""

    def end(self) -> None:
        """Let it end; what comes over the connections that are left is not answered."""
        self.over.set()
        self.shutdown()
        self.server_close()


def ask(port: int, method: str, path: str, *, source: str = "127.0.0.1", body: bytes | None = None) -> tuple[int, Any]:
    """Make one request from a source address, over a connection of its own; return the status and the X-Served-By."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=LIMIT, source_address=(source, 0))
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("X-Served-By", "")
    finally:
        connection.close()


class ScriptedCase(SynchronousTestCase):
    """Two scripted relays and two scripted servers."""

    def setUp(self) -> None:
        """Start them."""
        self.relays = [Scripted("relay1"), Scripted("relay2")]
        self.servers = [Scripted("influx1"), Scripted("influx2")]
        for each in (*self.relays, *self.servers):
            self.addCleanup(each.end)

    def places(self, scripted: list[Scripted]) -> list[str]:
        """Return their addresses."""
        return [f"{LOOPBACK}:{each.port}" for each in scripted]

    def run_server(self, server: Server) -> None:
        """Start HAProxy or nginx."""
        server.start()
        self.addCleanup(server.stop)
