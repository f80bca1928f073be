"""What holds for every command of ``influxrelay``: options, help, exit codes, errors, JSON, progress, Ctrl-C."""

from __future__ import annotations

import json
import re
import shlex
import socket
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from influxrelay.cli.arguments import Parser, make_parser
from testing.cli_case import CLICase
from testing.repair_case import RepairCase
from testing.servers import PROJECT
from testing.terminal import INFLUXRELAY, Terminal

COMMON = ["--config", "--socket", "--json", "--help"]
LAST = ["--listener", "--yes", *COMMON]
PAGE = (PROJECT / "docs" / "commands.rst").read_text(encoding="utf-8")
NOT_FOR_A_RELAY = ("shards", "config", "completion")
ON_OTHER_PAGES = {"verify", "repair"}
OUTPUTS = """[[http.{0}output]]
name = "influx1"
location = "http://127.0.0.1:1/write"
[[http.{0}output]]
name = "influx2"
location = "http://127.0.0.1:2/write"
"""
CONFIG = f'[[http]]\nname = "main"\nbind-addr = "127.0.0.1:0"\n{OUTPUTS.format("")}'
SHARDS = f"""
[[http]]
name = "main"
bind-addr = "127.0.0.1:0"
shard-key = "tag:customer"
default-shard = "s1"
[[http.shard]]
name = "s1"
{OUTPUTS.format("shard.")}
"""


def every(parser: Parser | None = None) -> Iterator[Parser]:
    """Yield the parser of each command that does something."""
    for each in (parser or make_parser()).commands.values():
        if each.get_default("command") != "dead-letters":
            yield each
        yield from every(each)


def words(parser: Parser) -> list[str]:
    """Return the words of a command's example, without the program."""
    return shlex.split(parser.example)[1:]


def documented() -> dict[str, Any]:
    """Return what the page shows as the JSON of each command."""
    shown = {}
    for line, block in re.findall(r"(?m)^``influxrelay ([^`]+) --json``[^:]*::\n\n((?:    .*\n|\n)+)", PAGE):
        shown[re.sub(r" (influx2|\d+|acme|bash|\S+\.toml)", "", line)] = json.loads(textwrap.dedent(block))
    return {**shown, "queues resume": shown["queues pause"]}


class ParserTests(CLICase):
    """What does not need a relay."""

    async def test_options(self) -> None:
        """Every command has the common options, in the same order behind its own, each with an explanation."""
        self.assertGreater(len(list(every())), 13)
        for parser in every():
            options = [each.option_strings[0] for each in parser._actions if each.option_strings]
            self.assertEqual(options[-4:], COMMON, parser.prog)
            last = [each for each in options if each in LAST]
            self.assertEqual(last, [each for each in LAST if each in last], parser.prog)
            self.assertEqual(options[len(options) - len(last) :], last, parser.prog)
            for each in parser._actions:
                self.assertTrue(each.help or each.option_strings == [], (parser.prog, each))
                self.assertNotIn("SUPPRESS", str(each.help), (parser.prog, each))

    async def test_help(self) -> None:
        """The help of every command has a sentence, an example that is correct, and the exit codes."""
        for parser in every():
            text = await self.good(*parser.prog.split()[1:], "--help", config=False)
            self.assertIn(f"example:\n  {parser.example}\n\nexit codes: 0 ", text)
            self.assertTrue(parser.example.startswith(parser.prog), parser.example)
            self.assertEqual(make_parser().parse_args(words(parser)).command, parser.get_default("command"))
            self.assertLessEqual(max(map(len, text.splitlines())), 80)

    async def test_wrong_usage(self) -> None:
        """A wrong option of any command is one line with the command's name, and exit code 2."""
        for parser in every():
            code, out, err = await self.run_cli(*words(parser), "--wrong")
            self.assertEqual((code, out, len(err.splitlines())), (2, "", 1), err)
            self.assertIn(" --help)", err)

    async def test_no_configuration(self) -> None:
        """Without a configuration every command ends with one line of the same form, and exit code 2."""
        for parser in every():
            if parser.prog.endswith(" completion"):
                continue  # it needs none
            example = ["config"] if parser.prog.endswith(" config") else words(parser)
            for more in ([], ["--json"]):
                code, out, err = await self.run_cli(*example, "--config", "/nowhere.toml", *more, config=False)
                self.assertEqual((code, out), (2, ""), err)
                self.assertRegex(err, rf"^{parser.prog}: /nowhere\.toml: cannot read the file: [^\n]+\n$")

    async def test_page(self) -> None:
        """The page of the documentation lists every command, and has the exit codes."""
        for parser in every():
            self.assertRegex(PAGE, rf"(?m)^``{parser.prog}[ `]")

    async def test_documented(self) -> None:
        """The page shows the JSON of every command but those that have a page of their own."""
        commands = {each.get_default("command") for each in every()}
        self.assertEqual(documented().keys(), commands - ON_OTHER_PAGES)


def same(test: TestCase, found: Any, shown: Any, where: str) -> None:
    """Check that JSON has the keys that a page shows, on every level."""
    if isinstance(shown, dict):
        test.assertEqual(found.keys(), shown.keys(), where)
        for name, value in shown.items():
            same(test, found[name], value, f"{where}.{name}")
    elif isinstance(shown, list):
        for each in found:
            same(test, each, (shown or [None])[0], f"{where}[]")
    elif found is not None and shown is not None:
        test.assertEqual(isinstance(found, str), isinstance(shown, str), (where, found))


class ServerTests(RepairCase):
    """With a relay and two InfluxDB servers."""

    async def test_json(self) -> None:
        """What verify and repair print is as their pages show it."""
        shown = {}
        for command in ("verify", "repair"):
            page = (PROJECT / "docs" / f"{command}.rst").read_text(encoding="utf-8")
            words = r"With ``--json`` the (?:answer|output) is one object::"
            blocks = re.findall(rf"(?m)^{words}\n\n((?:    .*\n|\n)+)", page)
            shown[command] = json.loads(textwrap.dedent(blocks[0]))
        self.write_to((self.a,), "m f=1 1000000000")
        self.start_relay()
        code, out, _ = await self.run_command("--json", config=self.config)
        self.assertEqual(code, 1)
        same(self, json.loads(out), shown["verify"], "verify")
        found = await self.repair()
        del found["stderr"]
        same(self, found, shown["repair"], "repair")


class JSONTests(CLICase):
    """With a relay that runs."""

    async def check(self, command: str, *more: str, code: int = 0) -> Any:
        """Run a command, and compare its JSON with the page's."""
        found, out, err = await self.run_cli(*command.split(), *more, "--json")
        self.assertEqual((found, err), (code, ""))
        same(self, json.loads(out), self.shown.pop(command), command)
        return json.loads(out)

    async def test_json(self) -> None:
        """With --json every command prints one object of the shape that the page shows."""
        self.shown = documented()
        service, _ = await self.with_letters(2)
        await self.check("top")
        await self.check("dead-letters list")
        await self.check("dead-letters show", "1")
        replayed = await self.check("dead-letters replay", "1", code=1)
        self.assertEqual(len(replayed["failed"]), 1)
        await self.check("dead-letters drop", "1")
        await self.check("queues pause", "two")
        self.assertEqual(await self.write(service), 204)
        await self.check("queues drop", "two")
        (row,) = [each for each in (await self.check("queues"))["queues"] if each["backend"] == "two"]
        for name in ("drops", "answers", "refused", "advice"):
            self.assertTrue(row[name], name)
        await self.check("queues mark-repaired", "two")
        await self.check("queues resume", "two")
        await self.check("reload")
        await self.check("config", str(PROJECT / "testing" / "configs" / "fork.toml"))
        await self.check("completion", "bash")
        self.config.write_text(SHARDS)
        await self.check("shards", "acme")
        self.assertEqual(self.shown, {})


class TerminalTests(SynchronousTestCase):
    """A person watches."""

    def setUp(self) -> None:
        """Make something that can be asked."""
        directory = tempfile.TemporaryDirectory(prefix="relay-")
        self.addCleanup(directory.cleanup)
        self.path = str(Path(directory.name) / "admin.sock")
        self.listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listening.close)
        self.listening.bind(self.path)
        self.listening.listen()

    def start(self, *words: str, **environment: str) -> Terminal:
        """Start a command."""
        command = [*INFLUXRELAY, *words, "--socket", self.path]
        terminal = Terminal(*command, piped=True, environment=environment)
        self.addCleanup(terminal.close)
        return terminal

    def take(self) -> socket.socket:
        """Return the connection of the command, which has sent what it asks for."""
        connection, _ = self.listening.accept()
        self.addCleanup(connection.close)
        self.assertTrue(connection.recv(1000).endswith(b"\n"))
        return connection

    def test_progress(self) -> None:
        """At a terminal long work shows a bar, which is gone at the end; standard output has the answer alone."""
        for environment, colored in (({}, True), ({"NO_COLOR": "1"}, False)):
            terminal = self.start("dead-letters", "drop", "1", "--json", **environment)
            connection = self.take()
            connection.sendall(b'{"progress": {"done": 3, "total": 10}}\n')
            terminal.see("3 of 10", "━")
            self.assertEqual(bool(terminal.colors()), colored)
            connection.sendall(b'{"result": {"dropped": 10}}\n')
            code, out = terminal.end()
            self.assertEqual((code, json.loads(out), terminal.text.strip()), (0, {"dropped": 10}, ""))

    def test_interrupt(self) -> None:
        """Ctrl-C ends any command at once with exit code 130, and leaves nothing on the terminal."""
        for parser in every():
            if parser.get_default("command") in NOT_FOR_A_RELAY:
                continue
            config = Path(self.path).with_name("relay.toml")
            config.write_text(CONFIG)
            terminal = self.start(*words(parser), "--config", str(config), *["--yes"] * parser.prog.endswith("drop"))
            connection = self.take()
            if "letters" in parser.prog:
                connection.sendall(b'{"progress": {"done": 3, "total": 10}}\n')
                terminal.see("3 of 10")
            terminal.press("\x03")
            self.assertEqual((*terminal.end(), terminal.text.replace("^C", "").strip()), (130, "", ""), parser.prog)
