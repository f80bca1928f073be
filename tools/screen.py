"""What a picture shows, at a terminal with keys or printed now and then."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from typing import Protocol

LOOK = 0.5  # seconds between two looks
PLAIN = 10.0  # seconds between two tables where there is no terminal


class View(Protocol):
    """What is shown."""

    def fitted(self, width: int, height: int) -> Sequence[str]:
        """Return the lines for a terminal of this size."""

    def told(self) -> tuple[Sequence[str], Sequence[str]]:
        """Return all lines, and what is wrong."""

    def press(self, key: str) -> None:
        """Carry out a key."""


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """Take over the terminal, with keys read at once and not echoed, and restore it afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)  # Ctrl-C still works
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def show(view: View, seconds: float) -> None:
    """Show it for so many seconds, or at a terminal until q."""
    deadline = time.monotonic() + seconds
    if sys.stdin.isatty() and sys.stdout.isatty():
        with _screen():
            _show_live(view, deadline)
    else:
        _show_plain(view, deadline)


def _show_live(view: View, deadline: float) -> None:
    while time.monotonic() < deadline:
        lines = view.fitted(*shutil.get_terminal_size())
        sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines[:-1]))
        sys.stdout.write(f"{lines[-1]}\x1b[K\x1b[J")
        sys.stdout.flush()
        if select.select([sys.stdin], [], [], LOOK)[0]:
            for key in os.read(sys.stdin.fileno(), 100).decode(errors="replace"):
                if key == "q":
                    return
                view.press(key)


def _show_plain(view: View, deadline: float) -> None:
    """Print the table now and then, and when problems change."""
    last, due = None, 0.0
    while time.monotonic() < deadline:
        lines, trouble = view.told()
        if trouble != last or time.monotonic() >= due:
            print(*lines, "", sep="\n", flush=True)
            last, due = trouble, time.monotonic() + PLAIN
        time.sleep(LOOK)
