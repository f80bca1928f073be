"""What a verification remembers."""

from __future__ import annotations

import os
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.verification.points import Flaw, Run
from influxrelay.verification.progress import MAX_AGE, Memory, Record, state_directory
from influxrelay.verification.statements import Measurement, Window

M = Measurement("d", "r", 'a "b"\nü')
KEY = ("main", ["a", "b"])
WINDOW = Record(
    M, 0, 10, 1, 20, 7, [(Window(0, 5), 12)], 2, [(1, Run(Flaw("value", ("a", "b")), 3, 4, 1, begins=True, ends=False))]
)
SAMPLE = Record(M, None, None, 0, 5, 7, [], 1, [])


class MemoryTests(SynchronousTestCase):
    """The file."""

    def setUp(self) -> None:
        """Have a directory that is not there yet."""
        self.directory = Path(self.mktemp()) / "state"

    def open(self, *, key: tuple[object, ...] = KEY, restart: bool = False) -> Memory:
        """Open it as a run does."""
        memory = Memory.open(self.directory, key, restart=restart)
        self.addCleanup(memory.close)
        return memory

    def interrupted(self) -> Path:
        """Leave two records, and return the file."""
        memory = self.open()
        self.assertEqual(memory.note, "")
        memory.add(WINDOW)
        memory.add(SAMPLE)
        memory.close()
        (path,) = self.directory.iterdir()
        return path

    def test_kept(self) -> None:
        """What was added before an interruption is there again, until the run comes to its end."""
        path = self.interrupted()
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        memory = self.open()
        self.assertIn("1 window not compared again", memory.note)
        self.assertEqual((memory.of(M, 0), memory.of(M, None), memory.of(M, 5)), (WINDOW, SAMPLE, None))
        memory.forget()
        self.assertFalse(path.exists())
        self.assertIsNone(self.open().of(M, 0))

    def test_anew(self) -> None:
        """Another comparison, the wish to begin anew, and a run of a week ago have nothing to go on with."""
        self.interrupted()
        self.assertIsNone(self.open(key=("other",)).of(M, 0))
        self.assertIsNone(self.open(restart=True).of(M, 0))
        for path in self.directory.iterdir():
            path.unlink()
        path = self.interrupted()
        past = time.time() - MAX_AGE - 1
        os.utime(path, (past, past))
        self.assertIsNone(self.open().of(M, 0))

    def test_damaged(self) -> None:
        """A line that was not written in full, and all behind it, is compared again, and written anew."""
        path = self.interrupted()
        whole = path.read_bytes()
        for tail in (b'[["d"', b"[1]\n", b"\0\0\0\n" + SAMPLE.line()):
            path.write_bytes(whole + tail)
            memory = self.open()
            self.assertEqual(memory.of(M, None), SAMPLE)
            memory.close()
            self.assertEqual(path.read_bytes(), whole)
        path.write_bytes(b"something else\n")
        self.assertIsNone(self.open().of(M, 0))

    def test_twice(self) -> None:
        """The same run at the same time is not remembered, and leaves the first one's file alone."""
        first = self.open()
        second = self.open()
        self.assertIn("under way already", second.note)
        second.add(WINDOW)
        second.forget()
        first.add(SAMPLE)
        first.close()
        self.assertEqual(self.open().of(M, None), SAMPLE)

    def test_no_place(self) -> None:
        """Without a directory that can be used nothing is remembered, and that is said."""
        self.directory.parent.mkdir()
        self.directory.write_text("a file")
        memory = self.open()
        self.assertIn("an interrupted run would start over", memory.note)
        memory.add(WINDOW)
        self.assertIsNone(memory.of(M, 0))

    def test_place(self) -> None:
        """It is where systemd says, or where the XDG base directories are."""
        for given, expected in (
            ({"STATE_DIRECTORY": "/a:/b", "XDG_STATE_HOME": "/c"}, "/a"),
            ({"XDG_STATE_HOME": "/c"}, "/c/influxrelay"),
            ({"XDG_STATE_HOME": "c", "HOME": "/h"}, "/h/.local/state/influxrelay"),
            ({"HOME": "/h"}, "/h/.local/state/influxrelay"),
        ):
            self.patch(os, "environ", given)
            self.assertEqual(state_directory(), Path(expected))
