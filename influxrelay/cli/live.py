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
_FOOT = "q quits; renewed every 2 s; times are UTC; rates are those of the last minute"
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
            while not pressed("q"):
                live.update(_drawn(look, console), refresh=True)
    finally:
        over.set()


def _end(number: int, _: object) -> NoReturn:
    """End because of a signal, and leave the terminal as it was."""
    sys.exit(128 + number)


def _drawn(look: _Look, console: Console) -> Group:
    width, height = console.size
    lines = top.screen(look.answer or {}, width, height, look.words(), _FOOT)
    faint = "dim " if look.problem else ""
    looks = [each.look if number == _HEADLINE else f"{faint}{each.look}" for number, each in enumerate(lines)]
    return Group(*(Text(line.text, look, no_wrap=True) for line, look in zip(lines, looks, strict=True)))


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[str], bool]]:
    """Give what waits a moment for a key, and tells whether it was this one."""
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)

    def pressed(key: str) -> bool:
        if not select.select([file], [], [], _KEY)[0]:
            return False
        data = os.read(file, 100)
        return not data or key.encode() in data.lower()

    try:
        tty.setcbreak(file)
        yield pressed
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
