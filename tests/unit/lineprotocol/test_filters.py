"""Filters: names, expressions, and what is left of a body."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.expressions import ExpressionError, compile_expression
from influxrelay.lineprotocol import filters, scanner, splitting
from influxrelay.lineprotocol.filters import Filter, divide
from influxrelay.lineprotocol.splitting import MAX_SERIES, read_series, split_lines
from testing import influx_grammar
from testing.line_protocol_cases import ALL, MALFORMED, RUBBISH

# Series as they are written, and what is read of them.
READ = {
    b"cpu": (b"cpu", []),
    b"cpu,host=a,dc=b": (b"cpu", [b"host", b"dc"]),
    rb"disk\ free,mount\ point=/a\ b": (b"disk free", [b"mount point"]),
    rb"a\,b,c\,d=e,f\=g=h": (b"a,b", [b"c,d", b"f=g"]),
    rb"a\=b,c=d\=e": (b"a=b", [b"c"]),
    rb"a\"b,c\"d=e": (b'a"b', [rb"c\"d"]),
    rb"a\b,c\d=e": (rb"a\b", [rb"c\d"]),
    b"tab\tbed,a\tb=c": (b"tab\tbed", [b"a\tb"]),
    "größe,wärme=ja".encode(): ("größe".encode(), ["wärme".encode()]),
    b"cpu,host==": (b"cpu", [b"host"]),
    b"cpu,host=#": (b"cpu", [b"host"]),
}
UNREADABLE = (b"", b"#cpu", b",host=a", b"cpu,", b"cpu,host", b"cpu,host=", b"cpu,=a", b"cpu,host=a,", b"cpu,,a=b")

# Patterns for which a backtracking engine takes for ever, and texts that let it.
A_LOT = 64 * 1024 - 1024
EXPONENTIAL = (
    (r"^(a+)+$", b"a" * A_LOT + b"!"),
    (r"^(a|aa)+$", b"a" * A_LOT + b"!"),
    (r"^(a|a?)+$", b"a" * A_LOT + b"!"),
    (r"(.*a){20}b", b"a" * A_LOT),
    (r"^(([a-z])+.)+[A-Z]([a-z])+$", b"a" * A_LOT),
    (r"^(\w+-?)*$", b"aaaa-" * (A_LOT // 5) + b"!"),
    (r"(a?){500}a{500}$", b"a" * A_LOT + b"!"),
    (r"[ab]*a[ab]{300}c", b"abbaabab" * (A_LOT // 8)),
)


class SeriesTests(SynchronousTestCase):
    """What is read of lines."""

    def test_names(self) -> None:
        """Measurement and tag keys are read as InfluxDB shows them; a series that it refuses is not read."""
        for series, names in READ.items():
            self.assertEqual(read_series(series), names, series)
        for series in UNREADABLE:
            self.assertIsNone(read_series(series), series)

    def test_too_long(self) -> None:
        """A series is read as long as InfluxDB may take it."""
        self.assertEqual(read_series(b"a" * MAX_SERIES), (b"a" * MAX_SERIES, []))
        self.assertIsNone(read_series(b"a" * (MAX_SERIES + 1)))

    def test_lines(self) -> None:
        """Lines end where InfluxDB ends them, and blanks before a series do not belong to it."""
        for body, expected in (
            (b"", [(b"", b"")]),
            (b"\n", [(b"", b""), (b"", b"")]),
            (b"a v=1 1", [(b"a v=1 1", b"a")]),
            (b"a v=1 1\nb,c=d v=1\n", [(b"a v=1 1", b"a"), (b"b,c=d v=1", b"b,c=d"), (b"", b"")]),
            (b'a s="1\n2" 1\n b v=1', [(b'a s="1\n2" 1', b"a"), (b" b v=1", b"b")]),
            (b"\n\t \0b,c=d v=1\r\n", [(b"", b""), (b"\t \0b,c=d v=1\r", b"b,c=d"), (b"", b"")]),
            (b" b v=1\na v=1", [(b" b v=1", b"b"), (b"a v=1", b"a")]),
            (rb"a\ b,c=d\,e v=1", [(rb"a\ b,c=d\,e v=1", rb"a\ b,c=d\,e")]),
            (b'a s="open\nb v=1', [(b'a s="open\nb v=1', b"a")]),
            (b'a,q="b v=1\nc,q="d v=1', [(b'a,q="b v=1', b'a,q="b'), (b'c,q="d v=1', b'c,q="d')]),
        ):
            lines, series = split_lines(body)
            self.assertEqual([*zip(lines, series, strict=True)], expected, body)

    @settings(max_examples=500)
    @given(RUBBISH)
    def test_agrees_with_influxdb(self, body: bytes) -> None:
        """Whatever the bytes, lines and series are those that InfluxDB reads, and nothing is lost."""
        lines, series = split_lines(body)
        self.assertEqual(b"\n".join(lines), body)
        stripped = [line.lstrip(b" \t\0").removesuffix(b"\n") for line in lines]  # in a string that is left open
        points = [each for each in zip(stripped, series, strict=True) if each[0] and not each[0].startswith(b"#")]
        read = [*influx_grammar.read(body)]
        self.assertEqual([line for line, _ in points], [line.text for line in read])
        for (_, found), line in zip(points, read, strict=True):
            if line.accepted:
                self.assertEqual(found, line.series)
                self.assertIsNotNone(read_series(found))


class ExpressionTests(SynchronousTestCase):
    """The engine."""

    def test_exponential(self) -> None:
        """Patterns that are exponential for other engines end on names of 64 KiB."""
        for pattern, name in EXPONENTIAL:
            self.assertIsNone(compile_expression(pattern).search(name), pattern)
            for line, rule in (
                (name + b",tag=x v=1 1", ([pattern], [])),
                (b"m," + name + b"=x v=1 1", ([], [pattern])),
            ):
                self.assertEqual(divide(line, [Filter(*rule)])[0], [b""], pattern)

    def test_errors(self) -> None:
        """What is no expression, or a huge one, is refused with a reason."""
        for pattern, words in (
            ("(", r"missing \): \("),
            ("a**", r"bad repetition operator"),
            (r"\1", "invalid escape sequence"),
            ("(?=a)", "invalid perl operator"),
            (r"\pL{1000}", "too large|instructions"),
            ("((a{100}){100}){100}", "invalid repetition size"),
        ):
            self.assertRaisesRegex(ExpressionError, words, compile_expression, pattern)

    def test_not_utf_8(self) -> None:
        """A dot matches what is no UTF-8, as in Go."""
        self.assertEqual(divide(b"a\xff v=1 1", [Filter(["^..$"], [])])[0], [b"a\xff v=1 1"])
        self.assertEqual(divide("aé v=1 1".encode(), [Filter(["^..$"], [])])[0], ["aé v=1 1".encode()])


class DivideTests(SynchronousTestCase):
    """What is left of a body."""

    def left(self, body: bytes, *rules: tuple[list[str], list[str]]) -> list[bytes]:
        """Return what is left for each filter."""
        return divide(body, [Filter(*rule) for rule in rules])[0]

    def test_fork(self) -> None:
        """The examples of the fork's documentation keep what they say, now line by line."""
        first = ["^.{0,8}$"], ["^.{0,5}$"]
        second: tuple[list[str], list[str]] = [], ["^.{5,12}$"]
        for line, taken in (
            (b"cpu,host=a v=1 1", [True, False]),
            (b"cpu,server=a v=1 1", [False, True]),
            (b"cpu,hosts=a v=1 1", [True, True]),
            (b"measurement,host=a v=1 1", [False, False]),
            (b"cpu,host=a,server=b v=1 1", [False, False]),
            (b"cpu v=1 1", [True, True]),
        ):
            self.assertEqual([bool(each) for each in self.left(line, first, second)], taken, line)

    def test_all_expressions(self) -> None:
        """A line is taken if its measurement matches all expressions, and each of its tags all the others."""
        body = b"cpu,host=a v=1 1\nmem,host=a v=1 2\ncpu,host=a,dc=b v=1 3\ncpu v=1 4\n"
        self.assertEqual(self.left(body, (["c", "u$"], [])), [b"cpu,host=a v=1 1\ncpu,host=a,dc=b v=1 3\ncpu v=1 4\n"])
        self.assertEqual(self.left(body, (["^mem", "cpu"], [])), [b""])
        self.assertEqual(self.left(body, ([], ["^h", "t$"])), [b"cpu,host=a v=1 1\nmem,host=a v=1 2\ncpu v=1 4\n"])
        self.assertEqual(self.left(body, (["^mem$"], ["^host$"])), [b"mem,host=a v=1 2\n"])

    def test_unchanged(self) -> None:
        """Where nothing is taken out the body is the same object, and equal filters are one."""
        body = b"a v=1 1\nb v=1 2\n"
        self.assertIs(self.left(body, (["[ab]"], []))[0], body)
        self.assertEqual(len({Filter(["a"], []), Filter(["a"], []), Filter([], ["a"])}), 2)

    def test_unreadable(self) -> None:
        """Comments and malformed lines stay beside what is taken; without a line to be stored nothing is left."""
        body = b"# a comment\n\ncpu v=1 1\n,host=a v=1 1\ncpu,host v=1\nmem v=1 1\n"
        self.assertEqual(self.left(body, (["^mem$"], []))[0], body.replace(b"cpu v=1 1\n", b""))
        self.assertEqual(self.left(b"# a comment\ncpu v=1 1\n", (["^mem$"], [])), [b""])
        for line in MALFORMED:
            lines, series = split_lines(line)
            if len(lines) == 1 and read_series(series[0]) is None:
                self.assertEqual(self.left(line, (["^$"], ["^$"])), [line])

    def test_unwanted(self) -> None:
        """Lines that no filter takes are counted; comments are not."""
        body = b"# comment\na v=1 1\nb v=1 1\nc v=1 1\nd v=1 1\n"
        self.assertEqual(divide(body, [Filter(["a"], []), Filter(["b"], [])])[1], 2)
        self.assertEqual(divide(body, [Filter(["a"], []), Filter([""], [])])[1], 0)

    def test_memory(self) -> None:
        """The verdicts are remembered, but not too many of them, and none of long series."""
        self.patch(filters, "_MEMORY", 10)
        each = Filter(["a"], [])
        for number in range(35):
            divide(b"a%d v=1 1\nb%d v=1 1" % (number, number), [each])
            self.assertLessEqual(len(each._takes), 10)
        each = Filter(["a"], [])
        divide(b"a" * 2000 + b" v=1 1", [each])
        self.assertEqual(each._takes, {})

    @settings(max_examples=300)
    @given(st.lists(st.sampled_from([*ALL, b"a v=1", b"b,t=1 v=1", b'c s="x\ny"', b" a,u=2 v=1 5"]), max_size=12))
    def test_all_lines(self, parts: list[bytes]) -> None:
        """What is left and what is taken out are all the lines, each with its bytes, and in order."""
        body = b"\n".join(parts)
        lines, series = split_lines(body)
        for rule in ((["a"], []), ([], ["t"]), (["^[^,]{0,3}$"], ["^.$"])):
            kept, _ = divide(body, [Filter(*rule)])
            taken = Filter(*rule).judge(series)
            left = [line for line, verdict in zip(lines, taken, strict=True) if verdict]
            if kept != [b""]:
                self.assertEqual(kept[0], b"\n".join(left))
            else:
                self.assertEqual([*influx_grammar.read(b"\n".join(left))], [])
            for name, verdict in zip(series, taken, strict=True):
                self.assertTrue(verdict or read_series(name) is not None)

    @settings(max_examples=200)
    @given(st.lists(st.sampled_from([*ALL, b"a v=1", b"b,t=1 v=1", b'c s="x\ny"', b" a,u=2 v=1 5"]), max_size=12))
    def test_bit_by_bit(self, parts: list[bytes]) -> None:
        """What is left does not depend on how much of a body is looked at in one go."""
        body = b"\n".join(parts)
        chosen = [Filter(["a"], []), Filter([], ["t"]), Filter(["."], ["."]), Filter(["^b"], [])]
        with patch.multiple(splitting, _WINDOW=1 << 20, OFTEN=1 << 20):
            whole = divide(body, chosen)
        with patch.multiple(splitting, _WINDOW=4, OFTEN=1), patch.object(scanner, "OFTEN", 1):
            self.assertEqual(divide(body, chosen), whole)
