"""Who may import what outside the package itself, and how long a module may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import PROJECT

FOLDERS = ("influxrelay", "testing", "tests", "bench", "tools")
MOST_LINES = 400


@cache
def imports(folder: str) -> list[tuple[Path, str]]:
    """Return each module that a file below a folder imports, with the file."""
    return [*_imports(folder)]


def _imports(folder: str) -> Iterator[tuple[Path, str]]:
    for path in sorted((PROJECT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, each.name) for each in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path, node.module
                yield from ((path, f"{node.module}.{each.name}") for each in node.names)


class ImportTests(SynchronousTestCase):
    """Imports between tests, their helpers and the tools."""

    def test_no_test_is_imported(self) -> None:
        """Nothing imports a module of tests; what several of them need is in ``testing``."""
        for folder in FOLDERS:
            for path, module in imports(folder):
                self.assertFalse(module.startswith("tests.") and ".test_" in module, f"{path} imports {module}")

    def test_one_way(self) -> None:
        """The package needs nothing else of this project, and only tests know tests."""
        for folder, others in {
            "influxrelay": {"testing", "tests", "bench", "tools"},
            "testing": {"tests", "bench", "tools"},
            "bench": {"tests", "tools"},
            "tools": {"tests", "bench"},
        }.items():
            for path, module in imports(folder):
                self.assertNotIn(module.partition(".")[0], others, f"{path} imports {module}")


class LengthTests(SynchronousTestCase):
    """Modules of all folders."""

    def test_lines(self) -> None:
        """No module is longer than one can take in."""
        for folder in FOLDERS:
            for path in (PROJECT / folder).rglob("*.py"):
                lines = path.read_text(encoding="utf-8").count("\n")
                self.assertLessEqual(lines, MOST_LINES, f"{path} has {lines} lines: split it by subject")
