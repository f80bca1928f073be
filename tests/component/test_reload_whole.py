"""A reload as a whole: all or nothing, checks, SIGHUP, and under load."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import socket
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory

from influxrelay.config.loader import load
from influxrelay.operations.views import Refused
from influxrelay.service.relay_service import RelayService
from testing.program import BIN, COMMANDS, Child, ProgramCase, location
from testing.reloading import ReloadCase, http, to
from testing.scripted import LOOPBACK, Client, Hold, answer, reactor, request, until
from testing.servers import free_port
from tests.soak import reloads


class AdminTests(ReloadCase):
    """What operators ask."""

    async def test_listener(self) -> None:
        """The listener for operators comes, moves and goes."""
        one = self.backend()
        ports = [free_port(), free_port()]
        self.start(http(to(one)))
        for port, change in zip(ports, ("admin: added", "admin: bind-addr"), strict=True):
            table = f'[admin]\nbind-addr = "{LOOPBACK}:{port}"\n'
            self.assertEqual(await self.reload(table + http(to(one))), [change])
            for path in (b"/ready", b"/metrics", b"/status"):
                factory = Factory.forProtocol(Client)
                endpoint: Any = TCP4ClientEndpoint(reactor, LOOPBACK, port)
                client: Client = await endpoint.connect(factory)
                self.assertEqual((await client.ask(request(path, b"", method=b"GET"))).status, 200, path)
                client.vanish()
        self.assertEqual(await self.reload(http(to(one))), ["admin: removed"])
        with socket.socket() as probe:
            await until(lambda: probe.connect_ex((LOOPBACK, ports[1])), "the closed port")
        self.assertEqual(
            await self.reload(f'[admin]\nbind-addr = "{LOOPBACK}:{ports[1]}"\n' + http(to(one))), ["admin: added"]
        )

    async def test_socket(self) -> None:
        """The admin socket moves; who is connected at the old one gets the answer."""
        one = self.backend()
        old, new = self.directory / "a.sock", self.directory / "b.sock"
        self.start(http(to(one), top=f'admin-socket = "{old}"'))
        factory = Factory.forProtocol(Client)
        self.write(http(to(one), top=f'admin-socket = "{new}"'))
        client: Client = await UNIXClientEndpoint(reactor, str(old)).connect(factory)
        client.send(b'{"command": "reload"}\n')
        self.assertEqual(await client.end(), b'{"result": {"checked": false, "changes": ["admin-socket"]}}\n')
        await until(lambda: not old.exists())
        again: Client = await UNIXClientEndpoint(reactor, str(new)).connect(factory)
        again.send(b'{"command": "reload check"}\n')
        self.assertEqual(await again.end(), b'{"result": {"checked": true, "changes": []}}\n')
        third = self.directory / "c.sock"
        third.write_text("in the way")
        words = await self.refused(http(to(one), top=f'admin-socket = "{third}"'))
        self.assertIn("cannot open the admin socket", words)
        self.assertTrue(new.exists())


class WholeTests(ReloadCase):
    """All of it, or nothing."""

    async def test_mistakes(self) -> None:
        """A file with a mistake changes nothing, and is refused with the line with which the relay would not start."""
        one = self.backend()
        good = http(to(one))
        self.start(good)
        before = (self.service.config, self.listener.config, self.sender, self.listener._port)
        for text, words in (
            ("[", "not valid TOML"),
            ("", "at least one [[http]]"),
            (good.replace("main", "x") + "\nunknown = 1", "unknown key"),
            (http(to(one, more='token-file = "/nowhere"')), "cannot read it"),
        ):
            refused = await self.refused(text)
            self.assertIn(words, refused)
            self.assertTrue(refused.startswith(str(self.path)), refused)
        self.path.unlink()
        with self.assertRaisesRegex(Refused, "cannot read the file"):
            await self.service.reload()
        self.assertEqual((self.service.config, self.listener.config, self.sender, self.listener._port), before)
        self.assertEqual((await self.submit()).status, 204)
        self.assertEqual(await self.reload(good), [])

    async def test_taken_back(self) -> None:
        """Where the last port cannot be had, the ports and journals that were opened before are closed again."""
        one = self.backend()
        port, free = free_port(), free_port()
        good = http(to(one))
        self.start(good)
        new = http(to(one), bind=f"{LOOPBACK}:{free}", listener=f'journal = "{self.directory / "journal"}"')
        more = new.replace("main", "new")
        with socket.socket() as taken:
            taken.bind((LOOPBACK, port))
            taken.listen()
            bad = http(to(one), bind=f"{LOOPBACK}:{port}").replace("main", "bad")
            words = await self.refused(f"{good}\n{more}\n{bad}")
            self.assertRegex(words, f"bad: cannot listen on {LOOPBACK}:{port}: .*Address already in use")
            admin = f'[admin]\nbind-addr = "{LOOPBACK}:{port}"\n'
            self.assertIn("admin: cannot listen on", await self.refused(f"{admin}{good}\n{more}"))
        self.assertEqual([each.name for each in self.service.listeners], ["main"])
        self.assertEqual((await self.submit()).status, 204)
        self.assertEqual(await self.reload(f"{good}\n{more}"), ["new: added"])

    async def test_journal_in_use(self) -> None:
        """A new listener whose journal cannot be had is refused, and nothing is left of it."""
        one = self.backend()
        (self.directory / "file").write_text("")
        self.start(http(to(one)))
        new = http(to(one), listener=f'journal = "{self.directory / "file" / "journal"}"').replace("main", "new")
        self.assertRegex(await self.refused(http(to(one)) + "\n" + new), "new: .*Not a directory")
        self.assertEqual(await self.reload(http(to(one))), [])

    async def test_check(self) -> None:
        """A check tries everything, tells what would change, and changes nothing."""
        one, two = self.backend(), self.backend()
        port, other = free_port(), free_port()
        good = http(to(one))
        self.start(good)
        journal = f'journal = "{self.directory / "journal"}"'
        new = http(to(two), bind=f"{LOOPBACK}:{other}", listener=journal).replace("main", "new")
        text = http(to(one), to(two, "two"), bind=f"{LOOPBACK}:{port}", listener='consistency = "all"') + "\n" + new
        self.write(text)
        changes = ["main: bind-addr, consistency", "main: output two added", "new: added"]
        for _ in range(2):
            self.assertEqual(await self.service.reload(check=True), {"checked": True, "changes": changes})
        self.assertEqual((await self.submit()).status, 204)
        self.assertEqual((len(self.service.listeners), len(self.listener.senders), two.requests), (1, 1, []))
        self.assertEqual((await self.service.reload())["changes"], changes)
        self.assertEqual((await self.submit()).status, 204)
        self.write("[")
        with self.assertRaisesRegex(Refused, "not valid TOML"):
            await self.service.reload(check=True)

    async def test_nothing_is_left_of_a_check(self) -> None:
        """A check leaves no file, port or open journal behind, and of journals that are there already no other bytes.

        Nor does a reload that is refused in the end.
        """
        one = self.backend()
        used, empty, new = self.directory / "used", self.directory / "empty", self.directory / "deep" / "new"
        sockets = self.directory / "sockets"
        for each in (empty, sockets):
            each.mkdir()
        (empty / "lost+found").mkdir()
        old = http(to(one), listener=f'journal = "{used}"')
        self.start(old)
        self.assertEqual((await self.submit()).status, 204)
        other = http(to(one, "other"), bind=f"{LOOPBACK}:{free_port()}").replace("main", "other")
        for _ in range(2):  # the second waits until nobody has the first journal open
            await self.reload(other)
        listeners = [
            http(to(self.backend(), name), bind=f"{LOOPBACK}:{free_port()}", listener=f'journal = "{directory}"')
            for name, directory in (("a", used), ("b", empty), ("c", new))
        ]
        more = "\n".join(text.replace("main", str(number)) for number, text in enumerate(listeners))
        before = self.left()
        top = f'admin-socket = "{sockets / "admin.sock"}"\n[admin]\nbind-addr = "{LOOPBACK}:{free_port()}"\n'
        good = top + other + "\n" + more
        self.write(good)
        for _ in range(2):
            self.assertEqual(len((await self.service.reload(check=True))["changes"]), 5)
            self.assertEqual(self.left(), before)
        with socket.socket() as taken:
            taken.bind((LOOPBACK, 0))
            bad = http(to(one), bind=f"{LOOPBACK}:{taken.getsockname()[1]}").replace("main", "bad")
            self.assertIn("cannot listen on", await self.refused(f"{good}\n{bad}"))
        self.assertEqual(
            {each for each in self.left() if "used" not in each}, {each for each in before if "used" not in each}
        )
        self.assertEqual(len(await self.reload(good)), 5)

    def left(self) -> dict[str, str]:
        """Return what is in the directory, by a digest of its content, and what this process has open."""
        paths = [each for each in self.directory.rglob("*") if each != self.path]
        found = {str(each): sha256(each.read_bytes()).hexdigest() if each.is_file() else "" for each in paths}
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(each.readlink())
                if str(self.directory) in target:
                    found[f"open: {target}"] = ""
        return found

    async def test_check_leaves_nothing(self) -> None:
        """Checks of a file with one more output register nothing with the journal; the reload does."""
        one, two = self.backend(), self.backend()
        listener = f'journal = "{self.directory / "journal"}"'
        self.start(http(to(one), listener=listener))
        self.write(http(to(one), to(two, "two"), listener=listener))
        writer = self.listener.writer
        for _ in range(5):
            await self.service.reload(check=True)
        depths = (await writer.contents()).depths
        self.assertEqual((list(depths), len(writer._house.registry._ids)), (["one"], 1))
        await self.service.reload()
        depths = (await writer.contents()).depths
        self.assertEqual((list(depths), len(writer._house.registry._ids)), (["one", "two"], 2))

    async def test_two_at_once(self) -> None:
        """Of two reloads the second waits for the first, also if that is refused."""
        one, two, three = self.backend(), self.backend(), self.backend()
        listener = f'journal = "{self.directory / "journal"}"'
        self.start(http(to(one), listener=listener))
        texts = [http(to(one), to(each, name), listener=listener) for each, name in ((two, "two"), (three, "three"))]
        first = Deferred.fromCoroutine(self.reload(texts[0]))  # which waits for the journal
        second = Deferred.fromCoroutine(self.reload(texts[1]))
        third = Deferred.fromCoroutine(self.reload(texts[1] + "\nunknown = 1"))
        third.addErrback(lambda failure: failure.trap(Refused))
        fourth = Deferred.fromCoroutine(self.reload(texts[0]))
        self.assertNoResult(first)
        self.assertEqual(await first, ["main: output two added"])
        self.assertEqual(await second, [])
        await third
        self.assertEqual(await fourth, [])

    async def test_while_it_stops(self) -> None:
        """A reload that a stop has overtaken changes nothing; before the start and after the end SIGHUP is nothing."""
        one, two = self.backend(), self.backend()
        listener = f'journal = "{self.directory / "journal"}"'
        self.start(http(to(one), listener=listener))
        reloaded = Deferred.fromCoroutine(self.refused(http(to(one), to(two, "two"), listener=listener)))
        stopped = self.service.stopService()
        self.service.hang_up()
        await stopped
        self.assertEqual(await reloaded, "the relay is shutting down")
        self.service.hang_up()
        RelayService(load(self.path), reactor).hang_up()
        self.assertEqual([sender.name for sender in self.listener.senders], ["one"])

    async def test_stopped_while_something_leaves(self) -> None:
        """A stop waits for what a reload has removed, no longer than it may."""
        held = Hold(answer(204))
        one, two = self.backend(held), self.backend()
        self.start(http(to(one, more="buffer-size-mb = 1"), to(two, "two"), listener='consistency = "all"'))
        client = await self.client(self.listener)
        client.send(request())
        await until(lambda: one.requests)
        await self.reload(http(to(two, "two")))
        stopped = self.service.stopService()
        self.assertNoResult(stopped)
        held.release()
        self.assertEqual((await client.answer()).status, 204)
        await stopped


class ProcessTests(ProgramCase):
    """The real program."""

    async def _logged(self, child: Child, words: str, count: int = 1) -> None:
        await until(lambda: child.out.count(words) >= count or child.code is not None, words)
        self.assertIsNone(child.code, child.out + child.err)

    async def _command(self, *arguments: str) -> tuple[int | None, str]:
        child = self.spawn(str(BIN / "influxrelay"), *arguments)
        await self.until_ended(child)
        return child.code, child.out + child.err

    async def test_sighup(self) -> None:
        """SIGHUP reloads under each command, as often as it comes; a mistake is logged in one line."""
        for command in COMMANDS.values():
            backend = self.backend()
            child = await self.started(self.write_config(location(backend)), command)
            config = self.write_config(location(backend), bind=f"{LOOPBACK}:0", listener='consistency = "all"')
            child.signal(signal.SIGHUP)
            await self._logged(child, "reloaded: main: consistency")
            self.write_config("[")
            child.signal(signal.SIGHUP)
            await self._logged(child, f"not reloaded, nothing has changed: {config}: not valid TOML")
            self.write_config(location(backend), location(backend).replace('"one"', '"two"'))
            for _ in range(3):
                child.signal(signal.SIGHUP)
            await self._logged(child, "reloaded: main: consistency; main: output two added")
            self.assertEqual((await self.asked(child, request())).status, 204)
            child.signal(signal.SIGTERM)
            await self.until_ended(child)
            self.assert_stopped_well(child)

    async def test_command_line(self) -> None:
        """``influxrelay reload`` prints what has changed, or why nothing has; its exit code tells which."""
        backend = self.backend()
        top = f'admin-socket = "{self.directory / "admin.sock"}"'
        config = self.write_config(location(backend), top=top)
        child = await self.started(config)
        asked = ("--config", config, "reload")
        self.assertEqual(await self._command(*asked), (0, "Nothing has changed.\n"))
        self.write_config(location(backend), top=top, listener='consistency = "all"')
        found = await self._command(*asked, "--check")
        self.assertEqual(found, (0, "This would change:\n  main: consistency\n"))
        self.assertEqual(await self._command(*asked), (0, "Changed:\n  main: consistency\n"))
        code, words = await self._command(*asked, "--json")
        self.assertEqual((code, json.loads(words)), (0, {"checked": False, "changes": []}))
        self.write_config(location(backend, "buffer-size-mb = 1"), top=top)
        code, words = await self._command(*asked)
        self.assertEqual(code, 2)
        self.assertRegex(
            words, r"^influxrelay reload: .*: http\[0\]\.output\[0\]\.buffer-size-mb: .* needs a restart\n$"
        )
        self.write_config(location(backend), top=top + "\nunknown = 1")
        code, words = await self._command(*asked)
        self.assertEqual((code, words.count("\n")), (2, 1))
        self.assertIn("unknown key", words)
        socket_path = str(self.directory / "admin.sock")
        code, words = await self._command("--socket", socket_path, "reload")
        self.assertEqual((code, words.count("\n")), (2, 1))
        self.assertIn("unknown key", words)
        child.signal(signal.SIGTERM)
        await self.until_ended(child)
        self.write_config(location(backend), top=top)
        code, words = await self._command(*asked)
        self.assertEqual((code, "needs a running relay" in words), (2, True))


class LoadTests(ReloadCase):
    """``python -m tests.soak.reloads``, for a short time."""

    def test_under_load(self) -> None:
        """Changing backends and broken files cost no write and no order, with buffers and with journals."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        code = reloads.main(["--count", "12", "--broken", "3", "--seed", "7"])
        self.assertEqual(code, 0, out.getvalue())
        self.assertRegex(out.getvalue(), r"buffer: 12 reloads, \d+ writes of 8 clients, 0 failed;")
        self.assertRegex(out.getvalue(), r"journal: 12 reloads, \d+ writes of 8 clients, 0 failed;")
