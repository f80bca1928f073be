"""What is told while a command works."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from influxrelay.core.text import age

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


EVERY = 60.0  # seconds between two lines where nobody watches


class Work:
    """Tells on standard error how far the work is, with an estimate of the end.

    On a terminal that is one line, which is gone at the end of this context manager; else a line a minute.
    """

    def __init__(self, command: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar: tuple[Progress, TaskID] | None = None
        self._command = command
        self._clock = clock
        self._began = self._told = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar[0].stop()

    def __call__(self, done: float, total: int, words: str = "") -> None:
        """Show that so many are done of so many.

        :param words: instead of the two numbers.
        """
        words = words or f"{int(done)} of {total}"
        if not sys.stderr.isatty():
            self._tell(done, total, words)
            return
        if self._bar is None:
            self._bar = _start(total)
        progress, task = self._bar
        progress.update(task, completed=done, total=total, description=words)

    def _tell(self, done: float, total: int, words: str) -> None:
        now = self._clock()
        if now - self._told < EVERY:
            return
        self._told = now
        left = f", about {age((now - self._began) * (total - done) / done)} left" if done else ""
        print(f"influxrelay {self._command}: {words}{left}", file=sys.stderr, flush=True)


def _start(total: int) -> tuple[Progress, TaskID]:
    from rich.console import Console  # noqa: PLC0415 (only who watches waits for it)
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=Console(stderr=True),
        transient=True,
    )
    progress.start()
    return progress, progress.add_task("", total=total)
