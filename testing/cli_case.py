"""Runs the command line in this process, beside relays."""

from __future__ import annotations

import io
import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from twisted.internet.threads import deferToThread

from influxrelay import cli
from testing.admin import OperatedCase


class Terminal(io.StringIO):
    """Where a person watches."""

    def isatty(self) -> bool:
        """Say that it is a terminal."""
        return True


class CLICase(OperatedCase):
    """Runs the command line in a thread."""

    def setUp(self) -> None:
        """Let nobody's terminal be seen."""
        super().setUp()
        self.patch(sys, "stdin", io.StringIO())

    async def run_cli(self, *arguments: str, config: bool = True) -> tuple[int, str, str]:
        """Return the exit code, and what was written to standard output and standard error."""
        out, err = io.StringIO(), io.StringIO()
        words = [*arguments, "--config", str(self.config)] if config else list(arguments)

        def run() -> int:
            with redirect_stdout(out), redirect_stderr(err):
                try:
                    return cli.main(words)
                except SystemExit as end:
                    return int(end.code or 0)

        code = await deferToThread(run)
        if code:
            self.assertEqual(len(err.getvalue().splitlines()), 0 if code == 1 else 1, err.getvalue())
        self.assertNotIn("SECRET", out.getvalue() + err.getvalue())
        return code, out.getvalue(), err.getvalue()

    async def good(self, *arguments: str, **named: Any) -> str:
        """Run a command that succeeds, and return its output."""
        code, out, err = await self.run_cli(*arguments, **named)
        self.assertEqual((code, err), (0, ""), out)
        return out

    async def refused(self, *arguments: str, code: int = 2, **named: Any) -> str:
        """Run a command that fails, and return its one line."""
        found, out, err = await self.run_cli(*arguments, **named)
        self.assertEqual((found, out), (code, ""), err)
        return re.sub(r"^influxrelay( [a-z-]+){0,2}: ", "", err.rstrip("\n"))

    async def json(self, *arguments: str) -> Any:
        """Run a command with ``--json``, and return what it says."""
        return json.loads(await self.good(*arguments, "--json"))
