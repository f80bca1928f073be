"""The last line of a campaign, and its exit status."""

from __future__ import annotations

import shutil
from typing import TextIO

from influxrelay.core.text import count


def conclude(out: TextIO, seed: int, wrong: int, directory: str, *, keep: bool) -> int:
    """Say how much was wrong, and how that can be seen again; return the exit status.

    :param directory: of all files; it stays if something was wrong.
    :param keep: whether it stays even if all is well.
    """
    if wrong:
        out.write(f"seed {seed}: {count(wrong, 'thing')} wrong; see {directory}\n")
        return 1
    if not keep:
        shutil.rmtree(directory, ignore_errors=True)
    out.write("nothing is wrong\n")
    return 0
