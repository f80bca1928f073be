"""No body is slow to read: what the regular expressions do is counted, and how they are written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.lineprotocol import clean_lines, datagrams, parser, scanner
from influxrelay.lineprotocol.datagrams import all_simple
from influxrelay.lineprotocol.parser import is_blank, prepare
from testing.line_protocol_cases import NOW


class Counted:
    """A pattern that counts its calls, and the bytes that it matches, in a meter."""

    def __init__(self, pattern: re.Pattern[bytes], meter: Counter[str]) -> None:
        self.pattern = pattern
        self.meter = meter

    def __getattr__(self, method: str) -> Callable[..., re.Match[bytes] | None]:
        def call(*arguments: Any) -> re.Match[bytes] | None:
            found: re.Match[bytes] | None = getattr(self.pattern, method)(*arguments)
            self.meter["calls"] += 1
            self.meter["bytes"] += len(found[0]) if found else 0
            return found

        return call


def patterns(module: ModuleType) -> dict[str, re.Pattern[bytes]]:
    """Return a module's regular expressions for bytes, by name."""
    found = {}
    for name, value in vars(module).items():
        for key, each in value.items() if isinstance(value, dict) else [("", value)]:
            if isinstance(each, re.Pattern) and isinstance(each.pattern, bytes):
                found[f"{name}{key}"] = each
    return found


class LinearTests(SynchronousTestCase):
    """No input is slow."""

    def setUp(self) -> None:
        """Count what the regular expressions do."""
        self.meter: Counter[str] = Counter()
        for module in (scanner, parser, datagrams):
            for name, value in list(vars(module).items()):
                if isinstance(value, re.Pattern):
                    self.patch(module, name, Counted(value, self.meter))
                elif isinstance(value, dict) and any(isinstance(each, re.Pattern) for each in value.values()):
                    self.patch(module, name, {key: Counted(each, self.meter) for key, each in value.items()})

    def test_hostile_bodies(self) -> None:
        """A body made to have a parser start over again and again is read a few times, not once for each byte."""
        size = 10_000
        units = [
            b'"',
            b"\\",
            b" ",
            b"1",
            b'="',
            b"a=1,",
            b",",
            b"=",
            b'a b="\n',
            b' a="\n',
            b'"",',
            b"\\\n",
            b"1e",
            b"\n",
        ]
        for prefix in (b"", b" ", b"a ", b'a b="', b"a b=", b"a b=1,", b"a,t=", b"#"):
            for unit in units:
                body = prefix + unit * (size // len(unit)) + b'"\n'
                self.meter.clear()
                prepare(body, b"ns", NOW)
                all_simple(body)
                is_blank(body)
                self.assertLess(self.meter["calls"], 4 * size, (prefix, unit))
                self.assertLess(self.meter["bytes"], 10 * size, (prefix, unit))


class PatternTests(SynchronousTestCase):
    """The regular expressions themselves."""

    def test_no_loop_goes_back(self) -> None:
        """Each loop is possessive, so what it has matched is not tried again in another way."""
        token = re.compile(r"(?s)\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:[:>=!]|<[=!])|([*+?]|\{\d*,\d*\})(\+?)|.")
        for module in (scanner, clean_lines, parser, datagrams):
            found = patterns(module)
            self.assertTrue(found)
            for name, pattern in found.items():
                loops = [(match[1], match[2]) for match in token.finditer(pattern.pattern.decode()) if match[1]]
                self.assertEqual([each for each in loops if each[1] != "+"], [], (module.__name__, name))
