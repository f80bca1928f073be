"""``influxrelay verify`` that is interrupted, and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from twisted.internet.threads import deferToThread

from testing.scripted import until
from testing.servers import Influxd
from testing.terminal import Terminal
from testing.verify_case import VerifyCase

PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets tests in the background ignore it
from influxrelay.cli import main
sys.exit(main())
"""


class ResumedTests(VerifyCase):
    """Ten measurements, of which the first and the last differ."""

    async def setUp(self) -> None:  # type: ignore[override]  # as of its base
        """Write the points."""
        await super().setUp()
        for number in range(10):
            self.both_have(*(f"m{number},host=h{n % 3} f={n} {n * 10**9}" for n in range(100)))
        self.write_to((self.a,), "m0 f=1 5", "m9 f=1 6")
        self.config = self.configuration()

    def command(self, share: str) -> list[str]:
        """Return the command that verifies slowly."""
        config = str(Path(self.config).resolve())
        words = ("verify", "--database", self.db, "--config", config, "--share", share)
        return [sys.executable, "-c", PROGRAM, *words]

    def records(self) -> list[list[object]]:
        """Return what the command remembers."""
        files = list(Path(self.state).glob("influxrelay/verify-*.jsonl"))
        return [json.loads(line) for path in files for line in path.read_bytes().splitlines()[1:]]

    async def interrupt(self, number: signal.Signals) -> int:
        """Start the command, send it a signal when it has compared two measurements, and return its exit code."""
        process = subprocess.Popen(  # noqa: ASYNC220 (it starts at once)
            self.command("3%"), stderr=subprocess.PIPE, env=dict(os.environ)
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        await until(lambda: len(self.records()) >= 4)  # of each, a window and the sample
        process.send_signal(number)
        _, err = await deferToThread(process.communicate)
        self.assertEqual(err, b"")  # nobody watches
        return process.returncode

    async def found(self, *arguments: str) -> tuple[list[tuple[str, str]], dict[str, int], str]:
        """Return which measurements differ and since when, how much was compared, and what else was said."""
        code, out, err = await self.run_command("--json", *arguments, config=self.config)
        self.assertEqual(code, 1, err)
        answer = json.loads(out)
        differences = [(each["measurement"], each["since"][-12:]) for each in answer["differences"]]
        return differences, answer["compared"], err

    async def go_on(self, number: signal.Signals) -> int:
        """Interrupt the command, start it again, and see that it goes on; return the exit code of the first one."""
        code = await self.interrupt(number)
        self.write_to((self.a,), "m0,host=h0 f=1 99")
        whole = [("m0", "0.000000005Z"), ("m9", "0.000000006Z")]
        differences, again, err = await self.found()
        self.assertEqual((differences, again), (whole, {"windows": 10, "points": 1002}))
        self.assertRegex(err, r"going on with a run that was interrupted at 20\S+Z: [2-9] windows not compared again")
        self.assertEqual(self.records(), [])
        differences, again, err = await self.found()
        self.assertEqual((len(differences), again), (3, {"windows": 10, "points": 1003}))
        self.assertNotIn("going on", err)
        return code

    async def test_killed(self) -> None:
        """It goes on where it was killed: what was compared is not compared again, and what was found is told."""
        self.assertEqual(await self.go_on(signal.SIGKILL), -signal.SIGKILL)

    async def test_interrupted(self) -> None:
        """It goes on where it was interrupted by a person."""
        self.assertEqual(await self.go_on(signal.SIGINT), 130)

    async def test_progress(self) -> None:
        """Who watches sees how far it is, and when it will be done; nothing of that is left at the end."""
        terminal = Terminal(*self.command("3%"), piped=True, environment=dict(os.environ))
        self.addCleanup(terminal.close)
        shown = re.compile(r"[1-9] of 10 windows, [1-9]\d* points read, 1 difference\s+━.*\d:\d\d")
        await deferToThread(terminal.wait_for, lambda: shown.search(terminal.text) is not None, "an estimate")
        terminal.press("\x03")
        code, out = await deferToThread(terminal.end)
        self.assertEqual((code, out, terminal.text.replace("^C", "").strip()), (130, "", ""))

    async def test_server_restarts(self) -> None:
        """A server that restarts meanwhile is waited for."""
        directory = Path(self.state)
        server = Influxd(directory / "c")
        await deferToThread(server.start)
        self.addCleanup(server.kill)
        server.create_database(self.db)
        self.write_to((server,), *(f"m{n} f={n} {n}" for n in range(10)))
        self.write_to((server,), "m0 f=1 5", "m9 f=1 6")
        self.config = self.configuration(f'name = "c"\nlocation = "{server.url}/write"')
        running = deferToThread(
            subprocess.run, self.command("50%"), capture_output=True, check=False, env=dict(os.environ)
        )
        await until(self.records)
        server.kill()
        await deferToThread(server.start)
        done = await running
        self.assertEqual((done.returncode, done.stderr.count(b"\n")), (1, 1), done.stderr)
        self.assertIn(b"m9", done.stdout)

    async def test_restart(self) -> None:
        """With --restart, and with other options, it begins anew."""
        await self.interrupt(signal.SIGKILL)
        self.write_to((self.a,), "m0,host=h0 f=1 99")
        differences, _, err = await self.found("--measurement", "m0")
        self.assertEqual((len(differences), "going on" in err), (2, False))
        differences, _, err = await self.found("--restart")
        self.assertEqual((len(differences), "going on" in err), (3, False))
        self.assertEqual(self.records(), [])
