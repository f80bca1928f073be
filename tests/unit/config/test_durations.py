"""Durations are Go's."""

from __future__ import annotations

import string

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config.durations import parse_duration


class DurationTests(SynchronousTestCase):
    """Go's time.ParseDuration."""

    def test_examples(self) -> None:
        """What Go's documentation and tests call durations are durations."""
        for text, seconds in (
            ("0", 0.0),
            ("-0", 0.0),
            ("500ms", 0.5),
            ("1m30s", 90.0),
            ("1h1m1s1ms", 3661.001),
            ("1.5h", 5400.0),
            (".5s", 0.5),
            ("5.s", 5.0),
            ("+5s", 5.0),
            ("-1.5s", -1.5),
            ("10us", 1e-05),
            ("10\u00b5s", 1e-05),
            ("10\u03bcs", 1e-05),
            ("39h9m14.425s", 140954.425),
            ("0.9ns", 0.0),
            ("0.3333333333333333333h", 1199.999999999),
            ("9223372036854775807ns", 9223372036.854775807),
            ("-9223372036854775808ns", -9223372036.854775808),
        ):
            with self.subTest(text):
                self.assertAlmostEqual(seconds, parse_duration(text), places=9)

    def test_no_durations(self) -> None:
        """What Go refuses is refused."""
        for text in (
            "", "3", "-", "s", ".", "-.", ".s", "+.s", "1d", "1S", "1 s", " 1s", "1s ", "1s\n", "1sm", "--1s", "1.2.3s",
            "1e3s", "٣s", "00", "0x1s", "9223372036854775808ns", "-9223372036854775809ns", "9" * 5000 + "s", "2562048h",
        ):  # fmt: skip
            with self.subTest(text[:20]):
                self.assertRaises(ValueError, parse_duration, text)

    @given(
        st.lists(st.tuples(st.integers(0, 10**5), st.sampled_from(["ns", "us", "ms", "s", "m", "h"])), min_size=1),
        st.sampled_from(["", "+", "-"]),
    )
    def test_terms_add_up(self, terms: list[tuple[int, str]], sign: str) -> None:
        """A duration is the sum of its terms, whatever their order."""
        units = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
        text = sign + "".join(f"{number}{unit}" for number, unit in terms)
        total = sum(number * units[unit] for number, unit in terms) * (-1 if sign == "-" else 1)
        self.assertEqual(total / 10**9, parse_duration(text))

    @given(st.text(st.sampled_from(string.digits + "+-.nuµmsh "), max_size=12))
    @settings(max_examples=300)
    def test_never_anything_but_a_number_or_value_error(self, text: str) -> None:
        """Any text is a number of seconds or a ValueError, and one without its unit is no duration unless it is 0."""
        try:
            seconds = parse_duration(text)
        except ValueError:
            return
        self.assertIsInstance(seconds, float)
        self.assertTrue(text[-1] in "smh" or text.lstrip("+-") == "0", text)
