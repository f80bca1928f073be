"""What a server's answers say."""

from __future__ import annotations

import json
from typing import Any

import attrs
import msgpack
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.text import printable
from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.connection import Unanswered
from influxrelay.verification.server import NegativeZero, Series, Server, of_measurement, read_series
from influxrelay.verification.statements import Measurement


def answer(name: str, *values: Any) -> dict[str, Any]:
    """Return an answer with one row."""
    series = {"name": name, "tags": {"t": name}, "columns": ["f"] * len(values), "values": [list(values)]}
    return {"results": [{"series": [series]}]}


@attrs.define
class Scripted(Server):
    """A server that says one thing after the other."""

    answers: list[bytes] = attrs.field(factory=list)

    def _exchange(self, *_: object, **settings: object) -> bytes:
        return self.answers.pop(0)


class AnswerTests(SynchronousTestCase):
    """JSON and MessagePack."""

    def test_same(self) -> None:
        """An answer says the same in both, to the last bit of a number."""
        values = [2**63 - 1, -(2**63), 2**64 - 1, 0.1, 1, -1, True, None, "a\nb\0\U0001f600", 1.7976931348623157e308]
        documents = [answer("m", *values), answer("ü", 5)]
        as_json = b"".join(json.dumps(each).encode() + b"\n" for each in documents)
        binary = b"".join(msgpack.packb(each) for each in documents)
        self.assertEqual(list(read_series(binary)), list(read_series(as_json)))
        zeros = [answer("m", -0.0, 0.0, 1.5, "x")]
        for body in (b'{"results":[{"series":[{"columns":[],"values":[[-0,0,1.5,"x"]]}]}]}', msgpack.packb(zeros[0])):
            ((found,),) = (each.values for each in read_series(body))
            self.assertEqual(found, [NegativeZero(-0.0), 0, 1.5, "x"])
            self.assertNotEqual(found[1], found[0])

    def test_not_utf8(self) -> None:
        """Bytes that are not UTF-8 are kept, and can be shown."""
        body = msgpack.packb(answer("m\udcff", "\udcfe\ufffd"), unicode_errors="surrogateescape")
        (found,) = read_series(body)
        self.assertEqual(found, Series("m\udcff", {"t": "m\udcff"}, ["f"], [["\udcfe\ufffd"]]))
        self.assertEqual(printable(found.name), "m\\xff")

    def test_no_end(self) -> None:
        """An answer that breaks off between two of its documents is none; nor is one without any."""
        first = answer("m", 1)
        first["results"][0]["partial"] = True
        for body in (json.dumps(first).encode() + b"\n", msgpack.packb(first), b"", b"\n"):
            with self.assertRaisesRegex(ValueError, "its answer has no end"):
                list(read_series(body))
        self.assertEqual(len(list(read_series(msgpack.packb(first) + msgpack.packb(answer("m", "partial", True))))), 2)
        self.assertEqual(list(read_series(b'{"results":[{"statement_id":0}]}\n')), [])

    def test_asked_again(self) -> None:
        """A server is asked again if its answer has no end, whether it is to be read or only to be compared."""
        whole = b'{"results":[{"statement_id":0}]}\n'
        first = b'{"results":[{"series":[{"name":"m","columns":["f"],"values":[[1]]}],"partial":true}]}\n'
        for cut in (b"", first):
            server = Scripted("a", "", ClientTLS(), sleep=lambda _: None, answers=[cut, whole, cut, first + whole])
            self.assertEqual(server.ask("SHOW DATABASES"), [])
            self.assertEqual(server.fetch("SHOW DATABASES"), first + whole)
            server.answers = [cut] * 3
            with self.assertRaisesRegex(Unanswered, "a does not answer: its answer has no end"):
                server.fetch("SHOW DATABASES")

    def test_measurement(self) -> None:
        """A name that is not UTF-8 is asked for by what it looks like, and told from those that look like it."""
        self.assertEqual(Measurement("d", "r", "m\ufffd.").quoted, '"d"."r"."m\ufffd."')
        self.assertEqual(Measurement("d", "r", "é\udcff.b").quoted, '"d"."r"./^\\x{E9}\\x{FFFD}\\x{2E}\\x{62}$/')
        both = [Series("m\udcff", {}, [], []), Series("m\udcfe", {}, [], [])]
        self.assertEqual(of_measurement("m\udcff", both), both[:1])
