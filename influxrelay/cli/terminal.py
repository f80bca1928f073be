"""What a person at a terminal sees while a command works."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Work:
    """Shows how far the work is, with an estimate of the end, in one line on standard error if that is a terminal.

    It is a context manager; the line is gone at its end.
    """

    def __init__(self) -> None:
        self._bar: tuple[Progress, TaskID] | None = None

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
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = _start(total)
        progress, task = self._bar
        progress.update(task, completed=done, total=total, description=words or f"{int(done)} of {total}")


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
