"""A terminal with a program in it, as a person sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping

import pyte

from testing.servers import PROJECT

LIMIT = 120.0  # seconds; only what hangs takes as long, also on a busy machine
_START = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)  # Ctrl-C there is a signal here
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets what it starts in the background, like the tests, ignore it
os.execvp(sys.argv[1], sys.argv[1:])
"""
INFLUXRELAY = (sys.executable, "-c", "import sys; from influxrelay.cli import main; sys.exit(main())")


class Terminal:
    """Runs a program, and shows what its terminal shows.

    :param piped: let its standard output be a pipe, whose content :meth:`end` returns.
    """

    def __init__(
        self,
        *command: str,
        columns: int = 80,
        rows: int = 24,
        piped: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.written = b""
        self.file, inside = pty.openpty()
        self.resize(columns, rows)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *command],
            cwd=PROJECT,
            stdin=inside,
            stdout=subprocess.PIPE if piped else inside,
            stderr=inside,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
        )
        os.close(inside)

    def resize(self, columns: int, rows: int) -> None:
        """Change its size."""
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    def close(self) -> None:
        """End the program, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self.file)

    @property
    def lines(self) -> list[str]:
        """What is shown, without spaces at the ends of lines."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """What is shown, as one text."""
        return "\n".join(self.lines)

    def colors(self) -> set[str]:
        """Return the colours that are shown."""
        return {char.fg for line in self._screen.buffer.values() for char in line.values()} - {"default"}

    def read(self) -> None:
        """Take what the program has written."""
        while select.select([self.file], [], [], 0.05)[0]:
            try:
                data = os.read(self.file, 65536)
            except OSError:  # it has ended
                return
            self.written += data
            self._stream.feed(data)

    def see(self, *words: str) -> None:
        """Wait until all these words are shown, wherever lines are broken."""
        self.wait_for(lambda: all(each in " ".join(self.text.split()) for each in words), words)

    def wait_for(self, condition: Callable[[], bool], what: object) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + LIMIT
        while True:
            self.read()
            if condition():
                return
            if time.monotonic() > deadline or (self.process.poll() is not None and not self._is_more()):
                raise AssertionError(f"{what} did not come to be:\n{self.text}")

    def _is_more(self) -> bool:
        before = self.written
        self.read()
        return self.written != before

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self.file, keys.encode())

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code, and what the program has written to its pipe."""
        deadline = time.monotonic() + LIMIT
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read()
        self.read()
        if self.process.poll() is None:
            raise AssertionError(f"it has not ended:\n{self.text}")
        out = self.process.stdout.read().decode() if self.process.stdout is not None else ""
        return self.process.returncode, out
