"""What the doubles of InfluxDB 2.x and 3.x have in common: an HTTP server in threads that keeps points.

There is no package of either server for Debian, PyPI or npm. The doubles follow the public documentation of the write
APIs and the source of the servers, and are kept honest by the real clients, which are tested against them.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import attrs

from testing.points import Contents, Parsed
from testing.servers import LOOPBACK, free_port


@attrs.frozen
class Asked:
    """A request.

    :ivar values: of the query string, the last of each name.
    """

    method: str
    path: str
    values: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """The values of a body that is a form."""
        return {name: each[-1] for name, each in parse_qs(self.body.decode()).items()}

    def secret(self) -> str:
        """Return the token or the password of the ``Authorization`` header."""
        scheme, _, secret = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            return base64.b64decode(secret).decode().partition(":")[2]
        return secret if scheme.lower() in ("token", "bearer") else ""


@attrs.frozen
class Said:
    """An answer; its body is JSON unless it is text."""

    status: int
    body: Any = None
    headers: dict[str, str] = attrs.field(factory=dict)


class InfluxDBDouble:
    """A server that keeps points, by bucket; it can be stopped and started again, and keeps them.

    :ivar asked: the writes that came.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.contents: defaultdict[str, Contents] = defaultdict(dict)
        self.asked: list[Asked] = []
        self._types: dict[tuple[str, str, str], type] = {}
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{LOOPBACK}:{self.port}"

    def answer(self, asked: Asked) -> Said:
        """Answer a request."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, at the same port as before."""
        double = self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_GET(self) -> None:
                """Answer."""
                double._handle(self)

            do_POST = do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        class Server(ThreadingHTTPServer):
            """Has threads that do not keep the process."""

            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Take a client that breaks its connection for what it is."""

            def process_request(self, request: Any, client_address: Any) -> None:
                """Remember connections, to break them at the end."""
                double._connections.append(request)
                super().process_request(request, client_address)

        self._connections: list[Any] = []
        self._server = Server((LOOPBACK, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and break those that are open."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            for connection in self._connections:
                with contextlib.suppress(OSError):  # it is closed already
                    connection.shutdown(2)

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", 0)))
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        values = {name: each[-1] for name, each in parse_qs(url.query, keep_blank_values=True).items()}
        asked = Asked(handler.command, url.path, values, headers, body)
        with self._lock:
            said = self.answer(asked)
        text = b"" if said.body is None else said.body.encode() if isinstance(said.body, str) else _json(said.body)
        handler.send_response(said.status)
        for name, value in said.headers.items():
            handler.send_header(name, value)
        if said.body is not None:
            handler.send_header("Content-Type", "text/plain" if isinstance(said.body, str) else "application/json")
        if said.status != 204:
            handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        if handler.command != "HEAD" and said.status != 204:
            handler.wfile.write(text)

    def query(self, asked: Asked, database: str) -> Said:
        """Answer a query in InfluxQL: ``SELECT field FROM measurement``, with ``epoch=ns``; nothing else is known.

        :param database: what the points are kept under.
        """
        q = asked.form.get("q") or asked.values.get("q", "")
        found = re.fullmatch(r"SELECT (\w+) FROM (\w+)", q)
        if not q:
            return Said(400, {"error": 'missing required parameter "q"'})
        if found is None:
            kind = re.match(r"[A-Z]+( DATABASE)?", q)
            words = f"not implemented: {kind[0] if kind else q}"
            return Said(200, {"results": [{"statement_id": 0, "error": words}]})
        field, measurement = found.groups()
        rows = sorted(
            [time, fields[field]]
            for (name, _, time), fields in self.contents[database].items()
            if name == measurement and field in fields
        )
        result: dict[str, Any] = {"statement_id": 0}
        if rows:
            result["series"] = [{"name": measurement, "columns": ["time", field], "values": rows}]
        return Said(200, {"results": [result]}, {"X-Influxdb-Build": "OSS"})

    def conflict(self, bucket: str, line: Parsed) -> str:
        """Return the field that has another type than before; empty if there is none."""
        assert line.key is not None
        for name, value in line.fields.items():
            if self._types.setdefault((bucket, line.key[0], name), type(value)) is not type(value):
                return name
        return ""

    def store(self, bucket: str, line: Parsed, time: int) -> None:
        """Keep a point; fields of the same point are merged."""
        assert line.key is not None
        self.contents[bucket].setdefault((*line.key[:2], time), {}).update(line.fields)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
