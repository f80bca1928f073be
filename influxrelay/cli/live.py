"""Shows ``influxrelay top`` on a terminal, until q or Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import attrs
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from influxrelay.cli import top
from influxrelay.core.errors import InfluxRelayError
from influxrelay.core.text import age

PERIOD = 2.0  # seconds between two looks
_KEY = 0.1  # seconds until a key, or a new size, is noticed
_FOOT = "q quits, arrow keys scroll; renewed every 2 s; UTC; rates of the last minute"
_STEPS = {b"\x1b[A": -1, b"\x1b[B": 1, b"k": -1, b"j": 1, b"\x1b[5~": -9, b"\x1b[6~": 9, b" ": 9}  # lines, by key
_HEADLINE = 1  # the line that says that the others are old
Ask = Callable[[], dict[str, Any]]
"""Returns how the relay is; raises :class:`InfluxRelayError`."""


@attrs.define
class _Look:
    """What was seen last.

    :ivar answer: None before the first one.
    :ivar time: of it, by ``time.monotonic()``.
    :ivar problem: why there is no newer one; empty if that is not so.
    :ivar note: what has happened, with the time at which that is no news any more.
    """

    answer: dict[str, Any] | None = None
    time: float = 0.0
    problem: str = ""
    note: tuple[str, float] = ("", 0.0)

    def take(self, ask: Ask) -> None:
        """Look once."""
        try:
            answer = ask()
        except InfluxRelayError as error:
            self.problem = str(error)
            return
        now = time.monotonic()
        if self.answer is not None and answer["started"] != self.answer["started"]:
            self.note = f"The relay was restarted at {answer['started']}", now + 30
        self.answer, self.time, self.problem = answer, now, ""

    def words(self) -> str:
        """Return what is to be said before all else."""
        if self.problem:
            return f"No answer for {age(time.monotonic() - self.time)}, trying again: {self.problem}"
        words, until = self.note
        return words if time.monotonic() < until else ""


def show(ask: Ask) -> None:
    """Show how the relay is.

    :raises InfluxRelayError: the relay does not answer the first time.
    """
    look = _Look(ask(), time.monotonic())
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PERIOD):
            look.take(ask)

    threading.Thread(target=watch, daemon=True).start()
    console = Console()
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _end)
    try:
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            key, skip, before = b"", 0, None
            while b"q" not in key.lower():
                size = console.size
                skip += sum(lines * key.count(each) for each, lines in _STEPS.items())
                shown = top.screen(look.answer or {}, *size, note=look.words(), foot=_FOOT, skip=skip)
                skip = shown.skip
                if (shown, size) != before:
                    live.update(_drawn(shown.lines, old=bool(look.problem)), refresh=True)
                before = shown, size
                key = pressed()
    finally:
        over.set()


def _end(number: int, _: object) -> NoReturn:
    """End because of a signal, and leave the terminal as it was."""
    sys.exit(128 + number)


def _drawn(lines: list[top.Line], *, old: bool) -> Group:
    looks = [f"dim {each.look}" if old and number != _HEADLINE else each.look for number, each in enumerate(lines)]
    return Group(*(Text(line.text, look, no_wrap=True) for line, look in zip(lines, looks, strict=True)))


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], bytes]]:
    """Give what waits a moment for a key, and returns what was pressed; q if the terminal is gone."""
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)

    def pressed() -> bytes:
        return (os.read(file, 100) or b"q") if select.select([file], [], [], _KEY)[0] else b""

    try:
        tty.setcbreak(file)
        yield pressed
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
