"""The command line, end to end: against a relay in this process, and against the journal of one that is stopped."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any

from twisted.internet.threads import deferToThread

from influxrelay import __version__, cli
from influxrelay.cli import arguments, client, commands
from influxrelay.cli import render as show
from influxrelay.journal import opening
from influxrelay.journal.records import Contents
from influxrelay.operations.views import Request
from testing.admin import BAD, HEADER, REFUSAL, SECRET
from testing.cli_case import CLICase, Terminal
from testing.kept_journal import KeptJournal
from testing.scripted import LINE, answer, until
from testing.servers import PROJECT


class RunningTests(CLICase):
    """With a relay that runs."""

    async def test_queues(self) -> None:
        """While a backend is down the table shows its depth, and below it stands the reason and what to do."""
        good, bad = self.backend(), self.backend()
        await bad.stop()
        service = self.operate(self.listener(good, bad))
        for _ in range(3):
            self.assertEqual(await self.write(service), 204)
        await until(lambda: self.http(service).senders[1].status.trouble is not None)
        head, one, two, empty, *advice = (await self.good("queues")).splitlines()
        self.assertEqual(head.split()[:5], ["LISTENER", "BACKEND", "STATE", "QUEUE", "WRITES"])
        self.assertEqual(one.split(), ["main", "one", "up", "journal", "0", "0", "B", "-", "0", "0"])
        self.assertRegex(two, r"^main +two +trouble +journal +3 +117 B +\d+s +0 +0$")
        self.assertEqual(two.index("trouble"), head.index("STATE"))
        self.assertEqual(empty, "")
        (line,) = advice
        self.assertTrue(line.startswith("main/two: it takes no writes (refused: "), line)
        self.assertIn(f"can be reached at {bad.url}; 3 writes kept for it", line)
        found = await self.json("queues")
        self.assertEqual(found["relay"], "running")
        self.assertEqual(
            set(found["queues"][1]),
            {
                *("listener", "backend", "state", "reason", "queue", "location", "writes", "bytes", "oldest"),
                *("oldest_age", "drops", "dead_letters", "journal", "journal_trouble", "missing", "advice"),
                *("answers", "refused", "repairable", "delivered_by", "queue_used", "queue_limit"),
            },
        )
        self.assertEqual(len((await self.json("queues", "--listener", "main"))["queues"]), 2)
        self.assertEqual(await self.refused("queues", "--listener", "x"), "there is no listener x; there is: main")

    async def test_all_well(self) -> None:
        """Where nothing is wrong the output says so."""
        self.operate(self.listener(self.backend()))
        self.assertEqual((await self.good("queues")).splitlines()[-1], "Nothing is wrong.")
        self.assertEqual(await self.good("dead-letters", "list"), "There are no dead letters.\n")

    async def test_pause_and_drop(self) -> None:
        """A queue is paused, dropped and resumed, each with one line; a terminal is asked for --yes."""
        service = self.operate(self.listener(self.backend(), self.backend()))
        line = "main/two: paused; resume it with: influxrelay queues resume two --listener main\n"
        self.assertEqual(await self.good("queues", "pause", "two"), line)
        self.assertEqual(await self.write(service), 204)
        self.assertIn("  paused  ", await self.good("queues"))
        self.patch(sys, "stdin", Terminal())
        words = await self.refused("queues", "drop", "two")
        self.assertEqual(words, "two will never get the 1 write (39 B) in its queue; add --yes to confirm")
        self.assertEqual(await self.good("queues", "drop", "two", "--yes"), "main/two: 1 write dropped (39 B)\n")
        self.assertEqual(await self.good("queues", "drop", "two"), "main/two: 0 writes dropped (0 B)\n")
        self.assertIn("1 (39 B)", await self.good("queues"))
        repaired = "main/two: 1 write (39 B) no longer counted as lost\n"
        self.assertEqual(await self.good("queues", "mark-repaired", "two"), repaired)
        self.assertEqual(
            await self.refused("queues", "mark-repaired", "x"), "there is no backend x; there is: one, two"
        )
        self.assertEqual(await self.good("queues", "resume", "two"), "main/two: resumed\n")
        self.assertEqual(await self.refused("queues", "pause", "x"), "there is no backend x; there is: one, two")

    async def test_dead_letters(self) -> None:
        """Dead letters are listed, shown, replayed and dropped, and no credentials are seen anywhere."""
        _, bad = await self.with_letters(3)
        head, first, *_ = (await self.good("dead-letters", "list")).splitlines()
        self.assertEqual(head.split()[:4], ["ID", "TIME", "LISTENER", "BACKEND"])
        self.assertRegex(
            first,
            r"^1 +20\S+Z +main +two +db\.week \(s\) +500 +unable to parse 'cpu value=oops': invalid boolean +cpu value",
        )
        self.assertIn("it has refused 3 writes for good", await self.good("queues"))
        self.assertIn("500", await self.good("dead-letters", "list", "--backend", "two"))
        shown = await self.good("dead-letters", "show", "1")
        self.assertIn("query:             db=db&rp=week&precision=s\n", shown)
        self.assertTrue(shown.endswith(f"\n\n{BAD.decode()}"), shown)
        self.assertEqual((await self.json("dead-letters", "show", "1"))["lines"], BAD.decode())
        code, out, _ = await self.run_cli("dead-letters", "replay", "1")
        self.assertEqual(code, 1)
        self.assertRegex(out, r"^0 dead letters replayed, 1 not taken\n1 \(main/two\): 500: ")
        bad.script.clear()
        bad.script.append(answer(204))
        out = await self.good("dead-letters", "replay", "1", "2")
        self.assertEqual(out, "2 dead letters replayed, 0 not taken\n")
        self.assertEqual(len((await self.json("dead-letters", "list"))["dead_letters"]), 1)
        self.assertEqual(await self.refused("dead-letters", "show", "1"), "there is no dead letter 1")
        self.patch(sys, "stdin", Terminal())
        self.assertIn("add --yes", await self.refused("dead-letters", "drop", "--all"))
        self.assertEqual(await self.good("dead-letters", "drop", "3"), "1 dead letter dropped\n")
        self.assertEqual(await self.json("dead-letters", "drop", "--all", "--yes"), {"dropped": 0})

    async def test_socket_option(self) -> None:
        """With --socket no configuration is read."""
        self.operate(self.listener(self.backend()))
        self.assertIn("Nothing", await self.good("queues", "--socket", str(self.socket), config=False))
        gone = str(self.directory / "gone.sock")
        self.patch(arguments, "CONFIG", str(self.directory / "none.toml"))
        words = await self.refused("queues", "--socket", gone, config=False)
        self.assertEqual(words, f"no relay answers at {gone}")

    async def test_child(self) -> None:
        """It is a program of its own, which needs no Twisted, and ends quietly when nobody reads on."""
        self.operate(self.listener(self.backend()))
        code = (
            "import sys; from influxrelay.cli import main; code = main(); print('twisted' in sys.modules); exit(code)"
        )
        command = [sys.executable, "-c", code, "queues", "--config", str(self.config)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}

        def run(out: int) -> subprocess.CompletedProcess[bytes]:
            pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.PIPE}
            return subprocess.run(command, env=environment, check=False, **pipes)

        found = await deferToThread(run, subprocess.PIPE)
        self.assertEqual((found.returncode, found.stderr), (0, b""))
        self.assertTrue(found.stdout.endswith(b"Nothing is wrong.\nFalse\n"), found.stdout)
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        found = await deferToThread(run, writer)
        self.assertEqual((found.returncode, found.stderr), (141, b""))
        full = os.open("/dev/full", os.O_WRONLY)
        self.addCleanup(os.close, full)
        found = await deferToThread(run, full)
        words = b"influxrelay queues: cannot write what was found: No space left on device\n"
        self.assertEqual((found.returncode, found.stderr), (2, words))


class StoppedTests(CLICase):
    """With a relay that does not run."""

    async def stopped_relay(self) -> None:
        """Leave a journal with two writes and two dead letters for backend ``two``, and a listener without any."""
        bad = self.backend(answer(500, REFUSAL))
        service = self.operate(self.listener(self.backend(), bad), self.listener(self.backend(), name="new"))
        for _ in range(2):
            self.assertEqual(await self.write(service, SECRET, BAD, HEADER), 204)
        while len((await self.order("dead-letters list"))["dead_letters"]) < 2:
            pass
        await self.order("queues pause", backend="two")
        for _ in range(2):
            self.assertEqual(await self.write(service, b"/write?db=other", LINE), 204)
        await service.stopService()
        (self.directory / "new" / "journal.sqlite").unlink()

    def kept(self) -> tuple[Contents, list[tuple[int, str, bytes]]]:
        """Return all that is in the journal."""
        journal = KeptJournal(self.directory / "main")
        try:
            letters = [(each.id, each.backend, each.write.body) for each in journal.dead_letters()]
            return journal.contents(), letters
        finally:
            journal.close()

    async def test_looking(self) -> None:
        """Its journals are read instead, and looking at them changes nothing."""
        await self.stopped_relay()
        before = self.kept()
        first, head, one, two, *advice = (await self.good("queues")).splitlines()
        self.assertEqual(first, "The relay does not run; this is what its journals hold.")
        self.assertEqual(head.split()[0], "LISTENER")
        self.assertRegex(one, r"^main +one +stopped +journal +0 ")
        self.assertRegex(two, r"^main +two +stopped +journal +2 +78 B +\d+s +0 +2$")
        self.assertIn("main/two: 2 writes in the journal: start the relay, and", "\n".join(advice))
        self.assertEqual((await self.json("queues"))["relay"], "stopped")
        self.assertEqual(len((await self.good("dead-letters", "list")).splitlines()), 3)
        self.assertIn("cpu value=oops", await self.good("dead-letters", "show", "2"))
        self.assertEqual(await self.good("queues", "--listener", "new"), f"{first}\nThere are no queues.\n")
        self.assertEqual(self.kept(), before)
        self.assertEqual([each.name for each in (self.directory / "new").iterdir()], ["lock"])

    async def test_dropping(self) -> None:
        """Queues and dead letters can be dropped."""
        await self.stopped_relay()
        self.patch(sys, "stdin", Terminal())
        self.assertIn("two will never get the 2 writes (78 B)", await self.refused("queues", "drop", "two"))
        self.assertEqual(await self.good("queues", "drop", "two", "--yes"), "main/two: 2 writes dropped (78 B)\n")
        self.assertEqual([each.writes for each in self.kept()[0].depths.values()], [0, 0])
        (row,) = [each for each in (await self.json("queues"))["queues"] if each["backend"] == "two"]
        self.assertEqual((row["writes"], row["drops"][0]["reason"], row["drops"][0]["writes"]), (0, "operator", 2))
        repaired = "main/two: 2 writes (78 B) no longer counted as lost\n"
        self.assertEqual(await self.good("queues", "mark-repaired", "two"), repaired)
        self.assertEqual(self.kept()[0].drops, ())
        self.assertEqual(await self.good("dead-letters", "drop", "1"), "1 dead letter dropped\n")
        self.assertEqual(await self.refused("dead-letters", "drop", "1", "2"), "there is no dead letter 1")
        self.assertEqual(await self.good("dead-letters", "drop", "--all", "--yes"), "1 dead letter dropped\n")
        self.assertEqual(await self.refused("queues", "drop", "x"), "there is no backend x; there is: one, two")
        service = self.operate(self.listener(self.backend()))
        await service.stopService()
        self.assertIn("main/two: it is no longer in the configuration", await self.good("queues"))
        self.assertEqual(await self.good("queues", "drop", "two", "--yes"), "main/two: removed\n")
        self.assertEqual((await self.good("queues")).splitlines()[-1].split()[:3], ["main", "one", "stopped"])

    async def test_progress(self) -> None:
        """It is told how far the work is."""
        await self.stopped_relay()
        told: list[tuple[int, int]] = []
        drop = Request("dead-letters drop", all=True)
        found = await deferToThread(client.Client(str(self.config)).ask, drop, lambda *far: told.append(far))
        self.assertEqual((found, told), ({"dropped": 2}, [(0, 2)]))

    async def test_refusals(self) -> None:
        """What needs a relay, or a journal, says so."""
        await self.stopped_relay()
        no_relay = f"no relay answers at {self.socket}"
        for words in (["queues", "pause", "two"], ["queues", "resume", "two"], ["dead-letters", "replay", "--all"]):
            self.assertEqual(await self.refused(*words), f"{no_relay}; this needs a running relay")
        self.assertEqual(await self.refused("queues", "--listener", "x"), "there is no listener x; there is: main, new")
        journal = KeptJournal(self.directory / "main")
        try:
            taken = f"{no_relay}; {self.directory / 'main'}: another relay is using this journal"
            self.assertEqual(await self.refused("queues"), taken)
        finally:
            journal.close()
        (self.directory / "main" / "journal.sqlite").write_bytes(b"rubbish" * 1000)
        unreadable = f"{no_relay}; {self.directory / 'main'}: "
        self.assertEqual(await self.refused("queues"), f"{unreadable}file is not a database")

        def denied(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(opening, "Store", denied)
        self.assertEqual(await self.refused("queues"), f"{unreadable}Permission denied")

    async def test_no_journal(self) -> None:
        """Without a journal and a socket there is nothing to look at, and the line says what to set."""
        self.config.write_text(self.listener(self.backend(), journal=False))
        words = "no admin socket is configured (set admin-socket), and there is no journal that could be read instead"
        self.assertEqual(await self.refused("queues"), words)
        words = await self.refused("queues", "--socket", str(self.directory / "x.sock"))
        self.assertTrue(words.startswith("no relay answers at "), words)

    async def test_config(self) -> None:
        """A configuration that cannot be read is one line."""
        self.assertIn(str(self.config), await self.refused("queues"))

    async def test_environment(self) -> None:
        """The environment variable of a secret need not be set for an operator's command."""
        listener = self.listener(self.backend(), journal=False)
        self.config.write_text(f'admin-socket = "{self.socket}"\n{listener}token = "${{INFLUXRELAY_NO_SUCH}}"\n')
        words = f"no relay answers at {self.socket}, and there is no journal that could be read instead"
        self.assertEqual(await self.refused("queues"), words)


class UsageTests(CLICase):
    """The command line's own errors."""

    async def test_usage(self) -> None:
        """Wrong usage is one line and the exit code 2."""
        for words in (
            [],
            ["fly"],
            ["queues", "fly"],
            ["queues", "drop"],
            ["dead-letters"],
            ["dead-letters", "show"],
            ["dead-letters", "replay"],
            ["dead-letters", "drop", "1", "--all"],
            ["dead-letters", "drop", "1", "--backend", "x"],
        ):
            self.assertIn("--help)", await self.refused(*words), words)

    async def test_help(self) -> None:
        """The help names every command, and what a pause does not survive; the version is told."""
        text = await self.good("--help")
        for words in ("queues", "dead-letters", "/etc/influxrelay/relay.toml", "exit codes"):
            self.assertIn(words, text)
        self.assertIn(
            "until it is resumed or the relay is restarted",
            " ".join((await self.good("queues", "pause", "--help")).split()),
        )
        self.assertEqual(await self.good("--version"), f"influxrelay {__version__}\n")

    async def test_options_first(self) -> None:
        """An option counts wherever it stands: before the command, within it, and behind it."""
        for words in (
            ["--config", "x.toml", "queues", "pause", "b"],
            ["queues", "--config", "x.toml", "pause", "b"],
            ["queues", "pause", "b", "--config", "x.toml"],
        ):
            self.assertTrue((await self.refused(*words, config=False)).startswith("x.toml: "), words)

    def serve(self, act: Callable[[socket.socket], object]) -> list[str]:
        """Let something answer at a socket, and return the arguments for it."""
        path = str(self.directory / "fake.sock")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen()

        def run() -> None:
            with listening, listening.accept()[0] as connection:
                act(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        return ["queues", "--socket", path]

    async def _answers(self, act: Callable[[socket.socket], object], words: str) -> None:
        arguments = self.serve(act)
        self.assertEqual(await self.refused(*arguments, config=False), words.format(arguments[-1]))

    async def test_early_end(self) -> None:
        """A relay that ends the connection without an answer is one line."""
        await self._answers(lambda connection: connection.recv(1000), "the relay has broken the connection")

    async def test_reset(self) -> None:
        """A connection that breaks is one line."""
        words = "the relay at {} has broken the connection: Connection reset by peer"
        await self._answers(lambda connection: connection.recv(1), words)

    async def test_foreign(self) -> None:
        """Another server at the socket is one line."""

        def act(connection: socket.socket) -> None:
            connection.recv(1000)
            connection.sendall(b"220 mail\n")

        await self._answers(act, "the process at {} is not a relay")

    async def test_silence(self) -> None:
        """A relay that does not answer is not waited for without an end."""
        self.patch(client, "PATIENCE", 0.05)
        ended = threading.Event()
        self.addCleanup(ended.set)
        words = "the relay at {} has not answered for 0.05 s"
        await self._answers(lambda _: ended.wait(5), words)

    async def test_no_socket(self) -> None:
        """A path that cannot be connected to is one line."""
        path = str(self.directory / ("x" * 200))
        words = await self.refused("queues", "--socket", path, config=False)
        self.assertEqual(words, f"cannot use the admin socket {path}: AF_UNIX path too long")

    async def test_interrupt(self) -> None:
        """Ctrl-C ends it without a traceback."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        self.patch(commands, "_ask", interrupt)
        with redirect_stderr(io.StringIO()) as err:
            self.assertEqual(cli.main(["queues"]), 130)
        self.assertEqual(err.getvalue(), "")

    def test_terminal(self) -> None:
        """What a backend or a client has sent cannot give orders to a terminal."""
        self.assertEqual(show.safe("a\x1b[2J\tb\nc\x9b"), "a\\x1b[2J\\x09b\nc\\x9b")
