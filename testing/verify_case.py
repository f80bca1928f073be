"""Runs ``influxrelay verify`` on two real InfluxDB servers."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from influxrelay import cli
from testing.cli_case import Terminal
from testing.influxdb_case import InfluxDBTestCase
from testing.servers import Influxd, free_port, send


class CommandCase(TestCase):
    """Runs the command."""

    db = ""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Have what the command remembers in a directory of the test's own."""
        self.state = tempfile.mkdtemp(prefix="influxrelay-state-")
        self.addCleanup(shutil.rmtree, self.state)
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": self.state})

    def configuration(self) -> str:
        """Return the path of a configuration."""
        raise NotImplementedError

    async def run_command(
        self, *arguments: str, config: str = "", command: tuple[str, ...] = (), terminal: bool = False
    ) -> tuple[int, str, str]:
        """Return the exit code and both outputs of ``verify`` for the test's database, or of another command."""
        out, err = StringIO(), Terminal() if terminal else StringIO()
        words = [
            *(command or ("verify", "--database", self.db)),
            "--config",
            config or self.configuration(),
            *arguments,
        ]

        def run() -> int:
            with redirect_stdout(out), redirect_stderr(err):
                try:
                    return cli.main(words)
                except SystemExit as end:
                    return int(end.code or 0)

        return await deferToThread(run), out.getvalue(), err.getvalue()


class VerifyCase(CommandCase, InfluxDBTestCase):
    """Writes to each of two InfluxDB servers, and runs the command."""

    async def setUp(self) -> None:  # type: ignore[override]  # as of its bases
        """Have the servers, and what the command remembers in a directory of the test's own."""
        await InfluxDBTestCase.setUp(self)
        await CommandCase.setUp(self)

    def write_to(self, servers: tuple[Influxd, ...], *lines: str, **parameters: str) -> None:
        """Write lines past any relay."""
        pairs = {"db": self.db, **parameters}.items()
        target = "/write?" + "&".join(f"{name}={quote(value)}" for name, value in pairs)
        for server in servers:
            status, answer = send("POST", server.url + target, "\n".join(lines).encode(errors="surrogateescape"))
            self.assertEqual(status, 204, answer)

    def both_have(self, *lines: str, **parameters: str) -> None:
        """Write lines to both servers."""
        self.write_to((self.a, self.b), *lines, **parameters)

    def execute(self, server: Influxd, statement: str) -> None:
        """Execute a statement that changes something."""
        status, answer = send("POST", f"{server.url}/query?q={quote(statement)}")
        self.assertEqual((status, b"error" in answer), (200, False), answer)

    def configuration(self, *outputs: str, listener: str = "", top: str = "") -> str:
        """Return the path of a configuration with both servers as backends, and others."""
        path = Path(self.mktemp())
        both = [
            f'name = "{name}"\nlocation = "{each.url}/write"' for name, each in zip("ab", self.servers, strict=True)
        ]
        tables = "".join(f"[[http.output]]\n{each}\n" for each in [*both, *outputs])
        http = f'[[http]]\nname = "main"\nbind-addr = "127.0.0.1:{free_port()}"\n{listener}\n'
        path.write_text(f"{top}\n{http}{tables}")
        return str(path)

    async def differences(self, *arguments: str) -> list[Any]:
        """Return what differs: measurement, kind, backends, first and last time, and points."""
        code, out, err = await self.run_command("--json", *arguments)
        found = json.loads(out)
        self.assertEqual((code, found["equal"]), (1, False) if found["differences"] else (0, True), err)
        self.assertEqual(set(found), {"equal", "compared", "differences", "not_compared"})
        self.assertEqual(set(found["compared"]), {"windows", "points"})
        shown = []
        for each in found["differences"]:
            self.assertEqual(each.pop("database"), self.db)
            names = ("measurement", "kind", "backend", "backends", "since", "until", "points", "message")
            shown.append(tuple(each[name] for name in names if name in each))
            self.assertLessEqual(set(each), {*names, "retention_policy"})
        return shown
