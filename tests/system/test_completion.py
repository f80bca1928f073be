"""``influxrelay completion``, in real shells."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from testing.admin import OperatedCase
from testing.servers import PROJECT, find_program
from testing.terminal import INFLUXRELAY, Terminal

CONFIG = """
[[http]]
name = "metrics"
bind-addr = "127.0.0.1:0"
output = [{ name = "alpha", location = "http://h/write" }, { name = "beta", location = "http://h/write" }]
[[http]]
name = "other"
bind-addr = "127.0.0.1:0"
output = [{ name = "gamma", location = "http://h/write" }]
"""


class ShellTests(SynchronousTestCase):
    """A person types, and presses the tabulator key."""

    def setUp(self) -> None:
        """Make the command, and a configuration."""
        directory = tempfile.TemporaryDirectory(prefix="shell-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        command = self.directory / "influxrelay"
        command.write_text(f'#!/bin/sh\nexec {shlex.join(INFLUXRELAY)} "$@"\n')
        command.chmod(0o755)
        (self.directory / "r.toml").write_text(CONFIG)

    def shell(self, *command: str, setup: str) -> Terminal:
        """Start a shell that has read what it has to."""
        environment = {
            "PATH": f"{self.directory}:{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT),
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
        }
        terminal = Terminal(*command, columns=160, environment=environment)
        self.addCleanup(terminal.close)
        terminal.press(f"cd {self.directory}; {setup}; echo rea''dy\n")
        terminal.see("ready")
        return terminal

    def check(self, terminal: Terminal) -> None:
        """Let a shell complete a command, an action, an option, a backend, a listener and a file."""
        for typed, completed in (
            ("influxrelay dead", "influxrelay dead-letters"),
            ("influxrelay queues mark", "influxrelay queues mark-repaired"),
            ("influxrelay verify --retention", "influxrelay verify --retention-policy"),
            ("influxrelay --config r.toml queues pause al", "influxrelay --config r.toml queues pause alpha"),
            (
                "influxrelay --config r.toml queues --listener oth",
                "influxrelay --config r.toml queues --listener other",
            ),
            ("influxrelay repair --config r.t", "influxrelay repair --config r.toml"),
        ):
            terminal.press("clear\n")
            terminal.wait_for(lambda: "influxrelay" not in terminal.text, "an empty screen")
            terminal.press(f"{typed}\t")
            terminal.see(completed)
            terminal.press("\x15")  # the line is deleted

    def test_bash(self) -> None:
        """In bash."""
        terminal = self.shell("bash", "--norc", "--noprofile", "-i", setup="source <(influxrelay completion bash)")
        self.check(terminal)

    def test_zsh(self) -> None:
        """In zsh."""
        setup = "autoload -U compinit; compinit -D; source <(influxrelay completion zsh)"
        self.check(self.shell(find_program("zsh", "zsh"), "-f", "-i", setup=setup))

    def test_installed(self) -> None:
        """As files where the shells look for them, as Debian's package has them, it works, too."""
        for shell, name in (("zsh", "_influxrelay"), ("bash", "influxrelay")):
            script = subprocess.run([*INFLUXRELAY, "completion", shell], cwd=PROJECT, check=True, capture_output=True)
            (self.directory / shell).mkdir()
            (self.directory / shell / name).write_bytes(script.stdout)
        zsh = find_program("zsh", "zsh")
        self.check(self.shell(zsh, "-f", "-i", setup="fpath=($PWD/zsh $fpath); autoload -U compinit; compinit -D"))
        self.check(self.shell("bash", "--norc", "--noprofile", "-i", setup=". bash/influxrelay"))

    def test_fish(self) -> None:
        """In fish."""
        fish = find_program("fish", "fish")
        self.check(self.shell(fish, "--no-config", "-i", setup="influxrelay completion fish | source"))


class RelayTests(OperatedCase):
    """With a relay that runs."""

    def offered(self, line: str) -> list[str]:
        """Return what is offered for the last word of a line."""
        out = self.directory / "offered"
        environment = {
            **os.environ,
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
            "_ARGCOMPLETE_IFS": "\n",
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
            "PYTHONPATH": str(PROJECT),
        }
        ended = subprocess.run(INFLUXRELAY, env=environment, check=False, capture_output=True)
        self.assertEqual((ended.stdout, ended.stderr), (b"", b""))
        return [each.strip() for each in out.read_text().splitlines()]

    async def test_names(self) -> None:
        """Names of backends, and ids of dead letters, come from the relay, whatever the configuration says."""
        await self.with_letters(2)
        self.config.write_text(self.config.read_text().replace('"one"', '"new"'))
        for line, names in (
            ("queues drop ", ["one", "two"]),
            ("queues drop --listener nobody ", []),
            ("dead-letters show ", ["1", "2"]),
            ("dead-letters list --backend ", ["one", "two"]),
            ("repair two --from o", ["one"]),
            ("verify --since ", []),
        ):
            self.assertEqual(
                await deferToThread(self.offered, f"influxrelay --config {self.config} {line}"), names, line
            )
        self.assertEqual(await deferToThread(self.offered, "influxrelay --config /nowhere queues drop "), [])
