"""Lines divided among shards."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import InvalidRequest
from influxrelay.lineprotocol.parser import PRECISIONS, prepare
from influxrelay.lineprotocol.scanner import run
from influxrelay.lineprotocol.splitting import read_tag, split_lines
from influxrelay.sharding import lines as lines_module
from influxrelay.sharding.lines import LineDivider
from influxrelay.sharding.placement import Epoch, ShardKey, ShardMap

BORDER = 1_796_083_200_000_000_000
SHARDS = [("s1", 1.0), ("s2", 1.0), ("s3", 1.0)]
EPOCHS = (Epoch(None, SHARDS[:2]), Epoch(BORDER, SHARDS, {b"a b": "s3"}))


def divide(shards: ShardMap, body: bytes, precision: bytes = b"ns") -> dict[str, bytes]:
    """Divide a body in one go."""
    return run(LineDivider(shards).divide_slowly(body, precision))


def one_by_one(shards: ShardMap, body: bytes, precision: bytes = b"ns") -> list[tuple[bytes, str]]:
    """Return the lines of a body and their shards, found as plainly as can be; "" for one that no server can read."""
    found = []
    for line, written in zip(*split_lines(body), strict=True):
        series = written.lstrip(b" \t\0")
        if not series or series.startswith(b"#"):
            continue
        key = read_tag(series, shards.key.tag)
        digits = line.rstrip(b" \t\0").rpartition(b" ")[2]
        number = digits.removeprefix(b"-")
        time = int(digits) * PRECISIONS[precision] if number.isdigit() and len(number) < 20 else BORDER
        found.append((line, "" if key is None else shards.place(key, time)))
    return found


def _lines(part: bytes) -> list[bytes]:
    lines, _ = split_lines(part)
    return lines if lines[-1] else lines[:-1]


NAMES = st.sampled_from([b"m", b"n\\,1", b"a\\ b", b"o"])
TAGS = st.sampled_from([b"", b",t=a", b",t=b", b",s=x,t=a\\ b", b",tt=a,t=c", b",t=d\\=,u=1", b",s=\\,t\\=a", b",t="])
FIELDS = st.sampled_from([b"v=1", b'v="a b,t=c"', b"v=1i,t=2", b'v="x\ny"', b'v="\\"",w=t', b"v", b"v=1,"])
TIMES = st.sampled_from([b" 1", b" %d" % (BORDER - 1), b" %d" % BORDER, b" %d  " % (BORDER + 5), b" -7", b" 12x"])
LINES = st.builds(lambda *parts: b"".join(parts), NAMES, TAGS, st.just(b" "), FIELDS, TIMES)
ODD = st.sampled_from([b"", b" ", b"# t=a 1", b"\t", b"m", b"  m,t=a v=1 1", b"\0m,t=b v=1 1", b"=", b",t=a v=1 1"])
BODIES = st.builds(b"\n".join, st.lists(st.one_of(LINES, LINES, LINES, ODD), max_size=12))


class DivideTests(SynchronousTestCase):
    """Who gets which lines."""

    def check(self, shards: ShardMap, body: bytes, precision: bytes = b"ns") -> None:
        """Compare with what is found line by line."""
        body, _ = prepare(body, precision, BORDER)
        try:
            found = divide(shards, body, precision)
        except InvalidRequest as error:
            self.assertEqual(error.status, 400)
            self.assertRaises(LookupError, one_by_one, shards, body, precision)
            return
        expected = one_by_one(shards, body, precision)
        if len(found) == 1:
            self.assertEqual(found, dict.fromkeys(found, body))
            self.assertLessEqual({place for _, place in expected}, {*found, ""})
            return
        got = {name: _lines(part) for name, part in found.items()}
        self.assertEqual(sorted(line for part in got.values() for line in part), sorted(line for line, _ in expected))
        for name, part in got.items():
            rest = iter(part)  # in their order
            self.assertTrue(all(line in rest for line, place in expected if place == name))
            self.assertTrue(found[name].endswith(b"\n") or body.endswith(part[-1]))

    @settings(max_examples=300, deadline=None)
    @given(BODIES, st.sampled_from([None, b"t", b"a=", b"s"]), st.sampled_from([None, "s2"]), st.integers(1, 2))
    def test_as_one_by_one(self, body: bytes, tag: bytes | None, default: str | None, epochs: int) -> None:
        """Whatever the lines are, each goes where a plain reading of it says, and none is lost or divided."""
        self.check(ShardMap(ShardKey(tag), EPOCHS[-epochs:], default), body)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 20), st.integers(-3, 3)), min_size=1, max_size=300))
    def test_clean_lines(self, lines: Sequence[tuple[int, int]]) -> None:
        """So do lines that are read many at once, in each precision, on both sides of an epoch's border."""
        shards = ShardMap(ShardKey(b"t"), EPOCHS)
        for precision in (b"ns", b"s", b"h"):
            base = BORDER // PRECISIONS[precision]
            body = b"".join(b"m,s=1,t=%d v=1 %d\n" % (key, base + step) for key, step in lines)
            self.check(shards, body, precision)

    def test_windows(self) -> None:
        """A body of several windows is divided like a small one."""
        body = b"".join(b"m,t=%d v=1 %d\n" % (number % 1000, BORDER + number - 5000) for number in range(10_000))
        self.check(ShardMap(ShardKey(b"t"), EPOCHS), body)

    def test_strings(self) -> None:
        """Bodies with strings, of several windows, of lines longer than those, and with newlines in them."""
        shards = ShardMap(ShardKey(b"t"), EPOCHS)
        many = b"".join(b'm,t=%d v="a b",w=1 %d\n' % (number % 100, BORDER + number - 2000) for number in range(5000))
        self.check(shards, many)
        self.check(shards, many + b'm,t=1 v="%b" 1\n' % (b"x y\n" * 150_000) + many)
        self.check(shards, many + b'm,t=1 v="x\n' + many)

    def test_escape_at_the_end(self) -> None:
        """A line that ends in an escaped byte keeps the newline behind it, which makes it one."""
        shards = ShardMap(ShardKey(b"t"), EPOCHS[1:])
        one, two = b'm,t=c v="\\"" 1', b"m,t=a\\ b v=1 1"
        found = divide(shards, one + b"\n" + two)
        self.assertEqual(sorted(found.values()), sorted([one + b"\n", two]))

    def test_memory(self) -> None:
        """What is remembered of series is bounded, and what is forgotten is found again."""
        self.patch(lines_module, "_MEMORY", 10)
        divider = LineDivider(ShardMap(ShardKey(b"t"), EPOCHS[1:]))
        long = b"m,t=" + b"x" * 1000 + b" v=1 1\n"
        body = long + b"".join(b"m,t=%d v=1 1\n" % number for number in range(100))
        self.assertEqual(run(divider.divide_slowly(body, b"ns")), run(divider.divide_slowly(body, b"ns")))
        self.assertLessEqual(len(divider._places[0]), 10)

    def test_words(self) -> None:
        """Who sends a line without the tag is told its name."""
        error = self.assertRaises(InvalidRequest, divide, ShardMap(ShardKey(b"t u"), EPOCHS), b"m v=1 1")
        self.assertEqual((error.status, error.message), (400, 'unable to shard: a line lacks the tag "t u"'))
