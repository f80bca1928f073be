"""Results in the forms of InfluxDB."""

from __future__ import annotations

import json
import zlib
from typing import Any
from zoneinfo import ZoneInfo

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.http.result_writer import Format, Packer, time_text
from influxrelay.sharding.results import Block

FIRST = Block("m", {"b": "", "a": "x,y"}, ("time", "v"), [[1_500_000_001, 3.0], [2_000_000_000, None]])
SECOND = Block("m", {"b": "", "a": "x,y"}, ("time", "v"), [[3_000_000_000, 1e-7]])
OTHER = Block("n", None, ("time", "s"), [[0, 'say "hi", twice'], [1, True]])


def written(form: Format, *blocks: Block, error: str = "") -> str:
    """Return the answer with one result."""
    writer = form.writer()
    pieces = [writer.begin(0, has_times=True), *map(writer.block, blocks), writer.end(error), writer.close()]
    return b"".join(pieces).decode()


class JSONTests(SynchronousTestCase):
    """Documents and chunks."""

    def test_document(self) -> None:
        """Blocks of one series become one; floats without a fraction have none; times are text or numbers."""
        found = json.loads(written(Format(), FIRST, SECOND, OTHER))
        (result,) = found["results"]
        self.assertEqual(result["series"][0]["tags"], {"a": "x,y", "b": ""})
        times = [row[0] for row in result["series"][0]["values"]]
        self.assertEqual(times, ["1970-01-01T00:00:01.500000001Z", "1970-01-01T00:00:02Z", "1970-01-01T00:00:03Z"])
        self.assertIn(",3],", written(Format(), FIRST))
        found = json.loads(written(Format(unit=10**6, pretty=True), FIRST))
        self.assertEqual(found["results"][0]["series"][0]["values"], [[1500, 3], [2000, None]])

    def test_empty(self) -> None:
        """A result without rows, with an error, and an answer without results."""
        self.assertEqual(written(Format()), '{"results":[{"statement_id":0}]}\n')
        self.assertEqual(json.loads(written(Format(), error="oh")), {"results": [{"statement_id": 0, "error": "oh"}]})
        self.assertEqual(Format().writer().close(), b'{"results":[]}\n')

    def test_chunks(self) -> None:
        """Chunks have the rows of one series, and say whether more of it, or of the result, follow."""
        lines = [json.loads(line) for line in written(Format(unit=1, chunk=2), FIRST, SECOND, OTHER).splitlines()]
        results = [line["results"][0] for line in lines]
        self.assertEqual([len(each["series"][0]["values"]) for each in results], [2, 1, 2])
        self.assertEqual([each["series"][0].get("partial", False) for each in results], [True, False, False])
        self.assertEqual([each.get("partial", False) for each in results], [True, True, False])


class OtherTests(SynchronousTestCase):
    """CSV, gzip, times."""

    def test_csv(self) -> None:
        """Lines are those of Go's encoder; another series with other columns has a head of its own."""
        expected = (
            "name,tags,time,v\n"
            'm,"a=x\\,y",1500000001,3\n'
            'm,"a=x\\,y",2000000000,\n'
            'm,"a=x\\,y",3000000000,0.0000001\n'
            "\n"
            "name,tags,time,s\n"
            'n,,0,"say ""hi"", twice"\n'
            "n,,1,true\n"
        )
        self.assertEqual(written(Format("csv"), FIRST, SECOND, OTHER), expected)

    def test_format(self) -> None:
        """The parameters say what a client wants."""
        for values, accept, encoding, expected in (
            ({}, b"", b"", Format()),
            ({b"chunked": b"true"}, b"*/*", b"", Format(chunk=10_000)),
            ({b"chunked": b"true", b"chunk_size": b"5", b"epoch": b"ms"}, b"", b"", Format(chunk=5, unit=10**6)),
            ({b"epoch": b"x", b"pretty": b"true"}, b"text/csv", b"gzip, br", Format("csv", 1, pretty=True, gzip=True)),
        ):
            self.assertEqual(Format.read(values, accept, encoding), expected)

    def test_gzip(self) -> None:
        """What is packed piece by piece can be unpacked."""
        packer = Packer(gzip=True)
        packed = packer.pack(b"abc") + packer.pack(b"def") + packer.end()
        self.assertEqual(zlib.decompress(packed, wbits=31), b"abcdef")

    def test_times(self) -> None:
        """Times are as Go writes them, before 1970 and in other zones too."""
        berlin, newfoundland = ZoneInfo("Europe/Berlin"), ZoneInfo("America/St_Johns")
        for when, zone, expected in (
            (-1, None, "1969-12-31T23:59:59.999999999Z"),
            (1_767_571_200 * 10**9 + 5 * 10**8, berlin, "2026-01-05T01:00:00.5+01:00"),
            (1_767_571_200 * 10**9, newfoundland, "2026-01-04T20:30:00-03:30"),
        ):
            found: Any = time_text(when, zone)
            self.assertEqual(found, expected)
