"""A disk that fails, for the journals of this process."""

from __future__ import annotations

import errno

from twisted.python.monkey import MonkeyPatcher
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.journal.appender import Appender
from influxrelay.journal.store import Store


def _fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "disk full")


def break_disk(case: SynchronousTestCase) -> MonkeyPatcher:
    """Let neither log nor ledger be written, nor be looked at, until the patches are restored."""
    patcher = MonkeyPatcher(
        (Appender, "write", _fail),
        (Appender, "probe", _fail),
        (Store, "save", _fail),
        (Store, "touch", _fail),
        (Store, "count_letters", _fail),
    )
    case.addCleanup(patcher.restore)
    patcher.patch()
    return patcher
