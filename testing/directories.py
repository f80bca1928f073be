"""Directories with short names."""

from __future__ import annotations

import shutil
import tempfile

from twisted.trial.unittest import SynchronousTestCase


def short_directory(case: SynchronousTestCase) -> str:
    """Make a directory whose path leaves room for that of a unix socket; trial's is too long."""
    directory = tempfile.mkdtemp(prefix="campaign-")
    case.addCleanup(shutil.rmtree, directory, ignore_errors=True)
    return directory
