"""Errors of the relay's own, in InfluxDB's form."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply


class JsonErrorTests(SynchronousTestCase):
    """Errors of our own."""

    def test_exact(self) -> None:
        """Status, headers and bytes are InfluxDB's."""
        self.assertEqual(
            json_error(400, "database is required"),
            Reply(
                400,
                ((b"Content-Type", b"application/json"), (b"X-Influxdb-Error", b"database is required")),
                b'{"error":"database is required"}\n',
            ),
        )

    def test_more_headers(self) -> None:
        """Headers of the caller come last."""
        reply = json_error(405, "method not allowed", (b"Allow", b"POST"))
        self.assertEqual(reply.headers[2:], ((b"Allow", b"POST"),))

    def test_quotes(self) -> None:
        """The body is JSON, whatever the message holds."""
        message = 'a "quoted" \\ text\nwith\tlines \u00e9 \u4e2d'
        self.assertEqual(json.loads(json_error(400, message).body), {"error": message})

    def test_newlines(self) -> None:
        """No line break of the message gets into a header."""
        for sep in ("\n", "\r\n", "\r", "\u2028", "\x0b", "\x0c", "\x1c", "\x85", " \n "):
            reply = json_error(400, f"one{sep}Set-Cookie: x")
            self.assertEqual(dict(reply.headers)[b"X-Influxdb-Error"], b"one Set-Cookie: x")

    def test_control_characters(self) -> None:
        """No control character of the message gets into a header (RFC 9110, 5.5)."""
        for code in (*range(32), 127):
            value = dict(json_error(400, f"one{chr(code)}two").headers)[b"X-Influxdb-Error"]
            self.assertRegex(value, rb"\A[\x20-\x7e]*\Z", code)

    def test_not_ascii(self) -> None:
        """A header is ASCII: other letters are escaped there, and kept in the body."""
        reply = json_error(400, "caf\u00e9 \u4e2d \U0001f600")
        self.assertEqual(dict(reply.headers)[b"X-Influxdb-Error"], b"caf\\xe9 \\u4e2d \\U0001f600")
        self.assertEqual(reply.body, '{"error":"caf\u00e9 \u4e2d \U0001f600"}\n'.encode())

    def test_surrogates(self) -> None:
        """A message with a lone surrogate, as ``surrogateescape`` makes them, is no error of ours."""
        reply = json_error(400, "bad \udcff")
        self.assertIn("bad", json.loads(reply.body)["error"])
