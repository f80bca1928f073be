"""Errors in the form of each API."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.http.error_forms import ErrorForm, in_v1, in_v2, in_v3

JSON = (b"Content-Type", b"application/json")
OF_V1 = json_error(400, "partial write: unable to parse 'bad': missing fields dropped=0")
OF_V2 = Reply(422, (JSON,), b'{"code":"unprocessable entity","message":"failure writing points"}')
_LINE = {"original_line": "bad", "line_number": 2, "error_message": "no fields"}
OF_V3 = Reply(400, (JSON,), json.dumps({"error": "partial write of line protocol occurred", "data": [_LINE]}).encode())
PAGE = Reply(502, ((b"Content-Type", b"text/html"), (b"Retry-After", b"7")), b"<h1>Bad Gateway</h1>")


class ErrorFormTests(SynchronousTestCase):
    """What a client of each API sees."""

    def shown(self, form: ErrorForm, reply: Reply) -> Any:
        """Return what is in an error, whose status and kind are checked."""
        found = form(reply)
        self.assertEqual(found.status, reply.status)
        self.assertIn(JSON, found.headers)
        return json.loads(found.body)

    def test_own(self) -> None:
        """An error that has an API's form already passes unchanged, and so does a page to a client of 1.x."""
        for form, reply in ((in_v1, OF_V1), (in_v2, OF_V2), (in_v3, OF_V3), (in_v1, PAGE)):
            self.assertIs(form(reply), reply)

    def test_v1(self) -> None:
        """A client of 1.x gets the messages of 2.x and 3.x, with the lines that are named, in body and header."""
        self.assertEqual(self.shown(in_v1, OF_V2), {"error": "failure writing points"})
        self.assertIn((b"X-Influxdb-Error", b"failure writing points"), in_v1(OF_V2).headers)
        expected = "partial write of line protocol occurred; line 2: no fields (bad)"
        self.assertEqual(self.shown(in_v1, OF_V3), {"error": expected})

    def test_v2(self) -> None:
        """A client of 2.x gets a code for the status, and the message."""
        message = json.loads(OF_V1.body)["error"]
        self.assertEqual(self.shown(in_v2, OF_V1), {"code": "invalid", "message": message})
        found = self.shown(in_v2, OF_V3)
        self.assertEqual((found["code"], "line 2: no fields (bad)" in found["message"]), ("invalid", True))
        self.assertEqual(self.shown(in_v2, PAGE), {"code": "internal error", "message": "<h1>Bad Gateway</h1>"})
        self.assertIn((b"Retry-After", b"7"), in_v2(PAGE).headers)
        self.assertEqual(self.shown(in_v2, Reply(503)), {"code": "unavailable", "message": "Service Unavailable"})

    def test_v3(self) -> None:
        """A client of 3.x gets a partial write with the lines that are named, and other messages without data."""
        self.assertEqual(
            self.shown(in_v3, OF_V1),
            {
                "error": "partial write of line protocol occurred",
                "data": [
                    {"original_line": "bad", "line_number": None, "error_message": "missing fields dropped=0"},
                ],
            },
        )
        self.assertEqual(self.shown(in_v3, OF_V2), {"error": "failure writing points", "data": None})
