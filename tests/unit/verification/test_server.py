"""What a server's answers say."""

from __future__ import annotations

import json
from typing import Any

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.text import printable
from influxrelay.verification.server import NegativeZero, Series, of_measurement, read_series
from influxrelay.verification.statements import Measurement


def answer(name: str, *values: Any) -> dict[str, Any]:
    """Return an answer with one row."""
    series = {"name": name, "tags": {"t": name}, "columns": ["f"] * len(values), "values": [list(values)]}
    return {"results": [{"series": [series]}]}


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

    def test_measurement(self) -> None:
        """A name that is not UTF-8 is asked for by what it looks like, and told from those that look like it."""
        self.assertEqual(Measurement("d", "r", "m\ufffd.").quoted, '"d"."r"."m\ufffd."')
        self.assertEqual(Measurement("d", "r", "é\udcff.b").quoted, '"d"."r"./^\\x{E9}\\x{FFFD}\\x{2E}\\x{62}$/')
        both = [Series("m\udcff", {}, [], []), Series("m\udcfe", {}, [], [])]
        self.assertEqual(of_measurement("m\udcff", both), both[:1])
