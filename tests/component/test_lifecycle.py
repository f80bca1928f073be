"""Start and stop of the real program, as a child process, and what it logs."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
from collections.abc import Sequence

from influxrelay import __version__
from testing.program import COMMANDS, TWISTD, Child, ProgramCase, location
from testing.scripted import (
    LINE,
    LOOPBACK,
    PING,
    Hold,
    ScriptedBackend,
    answer,
    hang,
    request,
    until,
)
from testing.servers import free_port


def _connects(port: int) -> bool:
    with socket.socket() as other:
        return other.connect_ex((LOOPBACK, port)) == 0


class StartTests(ProgramCase):
    """A start that goes well."""

    async def test_each_command(self) -> None:
        """Under each of Twisted's commands the relay says its version and address, answers, and forwards a write."""
        for name, command in COMMANDS.items():
            backend = self.backend()
            child = await self.started(self.write_config(location(backend)), command)
            found = await self.asked(child, PING)
            self.assertEqual(found.status, 204, name)
            self.assertEqual(found.header("X-Influxdb-Version"), f"relay-{__version__}".encode(), name)
            self.assertEqual((await self.asked(child, request())).status, 204, name)
            self.assertEqual([each.body for each in backend.requests], [LINE], name)
            self.assertIn(f"starting influxrelay {__version__} on uvloop", child.out, name)
            self.assertIn(f"main: listening for HTTP on {LOOPBACK}:{child.port}, backends: one", child.out, name)
            self.assertNotRegex(child.out, r"\b_[A-Z]\w+ starting")  # the name of a class is nothing to an operator

    async def test_daemon(self) -> None:
        """As a daemon it leaves a pidfile and a logfile, answers, and ends on SIGTERM with its pidfile removed."""
        port = free_port()
        config = self.write_config(location(self.backend()), bind=f"{LOOPBACK}:{port}")
        pidfile, logfile = self.directory / "relay.pid", self.directory / "relay.log"
        self.addCleanup(self.kill_daemon, pidfile)
        parent = self.spawn(
            TWISTD[0], f"--pidfile={pidfile}", f"--logfile={logfile}", "influxrelay", "--config", config
        )
        await self.until_ended(parent)
        self.assertEqual((parent.code, parent.out, parent.err), (0, "", ""))
        pid = int(pidfile.read_text())
        parent.out = logfile.read_text()
        self.assertEqual(parent.port, port)
        self.assertEqual((await self.asked(parent, request())).status, 204)
        os.kill(pid, signal.SIGTERM)
        await until(lambda: not pidfile.exists(), "the daemon's end")
        log = logfile.read_text()
        self.assertIn(f"starting influxrelay {__version__} on uvloop", log)
        self.assertIn("influxrelay has stopped", log)
        self.assertNotIn("Traceback", log)

    async def test_reactor(self) -> None:
        """A reactor that the command names is used, under twistd and twist."""
        for name, option in (("twistd", "--reactor=epoll"), ("twist", "--reactor=epoll")):
            backend = self.backend()
            program, *options = COMMANDS[name]
            child = await self.started(self.write_config(location(backend)), (program, option, *options))
            self.assertIn(" on EPollReactor", child.out, name)
            self.assertEqual((await self.asked(child, request())).status, 204, name)
            child.signal(signal.SIGTERM)
            await self.until_ended(child)
            self.assert_stopped_well(child)

    async def test_without_uvloop(self) -> None:
        """Where uvloop is not installed the relay runs on the standard event loop."""
        missing = self.directory / "missing"
        missing.mkdir()
        (missing / "uvloop.py").write_text("raise ImportError('not here')\n")
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": str(missing)})
        child = await self.started(self.write_config(location(self.backend())))
        self.assertIn(" on asyncio", child.out)
        self.assertEqual((await self.asked(child, request())).status, 204)
        child.signal(signal.SIGTERM)
        await self.until_ended(child)
        self.assert_stopped_well(child)


class StopTests(ProgramCase):
    """The end by a signal."""

    async def _stop_with_write_in_flight(self, command: Sequence[str], number: int) -> Child:
        held = Hold(answer(204))
        backend = self.backend(held)
        child = await self.started(self.write_config(location(backend)), command)
        client, idle = await self.connected(child), await self.connected(child)
        self.assertEqual((await idle.ask(PING)).status, 204)
        client.send(request())
        await until(lambda: backend.requests, "the write at the backend")
        child.signal(number)
        await idle.end()  # idle connections are closed at once, so the stop has begun
        self.assertIsNone(child.code)
        held.release()
        found = await client.answer()
        self.assertEqual((found.status, found.header("Connection")), (204, b"close"))
        await self.until_ended(child)
        return child

    async def test_sigterm(self) -> None:
        """SIGTERM: what is in flight is answered, then the program ends as that signal wants it, under each command."""
        for command in COMMANDS.values():
            child = await self._stop_with_write_in_flight(command, signal.SIGTERM)
            self.assert_stopped_well(child)
            self.assertIn(child.code, (0, -signal.SIGTERM))

    async def test_sigint(self) -> None:
        """SIGINT, thus Ctrl-C, does the same as SIGTERM."""
        for command in COMMANDS.values():
            child = await self._stop_with_write_in_flight(command, signal.SIGINT)
            self.assert_stopped_well(child)
            self.assertIn(child.code, (0, -signal.SIGINT))

    async def test_closed_at_once(self) -> None:
        """While the last writes are answered nobody can connect any more."""
        held = Hold(answer(204))
        backend = self.backend(held)
        child = await self.started(self.write_config(location(backend)))
        client, idle = await self.connected(child), await self.connected(child)
        client.send(request())
        await until(lambda: backend.requests)
        child.signal(signal.SIGTERM)
        await idle.end()
        await until(lambda: not _connects(child.port))
        held.release()
        self.assertEqual((await client.answer()).status, 204)
        await self.until_ended(child)

    async def test_within_the_timeout(self) -> None:
        """With a backend that never answers the program ends within shutdown-timeout, and its clients get an error."""
        backend = self.backend(hang)
        child = await self.started(self.write_config(location(backend), top='shutdown-timeout = "1s"'))
        client, waiting = await self.connected(child), await self.connected(child)
        client.send(request())
        await until(lambda: backend.requests)
        waiting.send(PING + request())
        self.assertEqual((await waiting.answer()).status, 204)  # and the relay has the write, too
        child.signal(signal.SIGTERM)
        for each in (client, waiting):
            self.assert_unable(await each.answer())
        await self.until_ended(child)
        self.assert_stopped_well(child)
        self.assertIn("not everything could be settled within 0.5 s", child.out)

    async def test_silent_client(self) -> None:
        """A client that never finishes its request does not keep the program from ending in time."""
        config = self.write_config(
            location(self.backend()), top='shutdown-timeout = "1s"', listener='body-timeout = "1h"'
        )
        child = await self.started(config)
        client = await self.connected(child)
        client.send(request()[:-10])
        child.signal(signal.SIGTERM)
        await self.until_ended(child)
        self.assert_stopped_well(child)

    async def test_udp(self) -> None:
        """What has come in by UDP before SIGTERM is handed on before the end, and the log tells the counts."""
        backend = self.backend()
        port = free_port("udp")
        udp = f'[[udp]]\nname = "u"\nbind-addr = "{LOOPBACK}:{port}"\nbatch-timeout = "1h"\n'
        udp += f'[[udp.output]]\nname = "one"\nlocation = "{backend.url}?db=d"\n'
        child = await self.started(self.write_config(location(backend) + udp))
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            await until(lambda: "listening for UDP on" in child.out)
            for _ in range(3):
                sender.sendto(LINE + b"rubbish\n", (LOOPBACK, port))
            self.assertEqual((await self.asked(child, PING)).status, 204)
        child.signal(signal.SIGTERM)
        await self.until_ended(child)
        self.assertEqual([(each.query, each.body) for each in backend.requests], [(b"db=d&precision=ns", LINE * 3)])
        self.assertIn("u: lines received: 6, dropped: 3 (invalid: 3); sent to one: 3, dropped: 0", child.out)
        self.assert_stopped_well(child)


class TakenPortTests(ProgramCase):
    """A start that fails because somebody else has the port."""

    def take(self, kind: socket.SocketKind) -> int:
        """Take a port, and return it."""
        taken = socket.socket(type=kind)
        self.addCleanup(taken.close)
        taken.bind((LOOPBACK, 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port: int = taken.getsockname()[1]
        return port

    def configs(self) -> dict[str, tuple[str, int]]:
        """Return the path of a configuration and its taken port, for HTTP and for UDP."""
        backend = ScriptedBackend()
        backend.port = 1
        http, udp = self.take(socket.SOCK_STREAM), self.take(socket.SOCK_DGRAM)
        listener = (
            f'[[udp]]\nname = "main"\nbind-addr = "{LOOPBACK}:{udp}"\noutput = [{{ location = "127.0.0.1:1" }}]\n'
        )
        path = self.directory / "udp.toml"
        path.write_text(listener)
        return {
            "http": (self.write_config(location(backend), bind=f"{LOOPBACK}:{http}"), http),
            "udp": (str(path), udp),
        }

    async def _in_the_foreground(self, command: Sequence[str], config: str, port: int) -> None:
        child = self.spawn(*command, "influxrelay", "--config", config)
        await self.until_ended(child)
        shown = child.out + child.err
        self.assertNotEqual(child.code, 0, shown)
        self.assertNotIn("Traceback", shown)
        self.assertNotIn("Unhandled", shown)
        (line,) = child.err.splitlines()
        self.assertRegex(
            line, rf"^influxrelay: main: cannot listen on 127\.0\.0\.1:{port}: .*[Aa]ddress already in use"
        )

    async def test_http(self) -> None:
        """A taken HTTP port: one line on standard error, and a code that is not 0."""
        await self._in_the_foreground(TWISTD, *self.configs()["http"])

    async def test_udp(self) -> None:
        """A taken UDP port: one line on standard error, and a code that is not 0."""
        await self._in_the_foreground(TWISTD, *self.configs()["udp"])

    async def test_http_under_twist(self) -> None:
        """A taken HTTP port is the same one line under twist."""
        await self._in_the_foreground(COMMANDS["twist"], *self.configs()["http"])

    async def test_udp_under_twist(self) -> None:
        """A taken UDP port is the same one line under twist."""
        await self._in_the_foreground(COMMANDS["twist"], *self.configs()["udp"])

    async def _as_a_daemon(self, config: str, port: int) -> None:
        pidfile, logfile = self.directory / "relay.pid", self.directory / "relay.log"
        self.addCleanup(self.kill_daemon, pidfile)
        parent = self.spawn(
            TWISTD[0], f"--pidfile={pidfile}", f"--logfile={logfile}", "influxrelay", "--config", config
        )
        await self.until_ended(parent)
        self.assertNotEqual(parent.code, 0)
        self.assertIn(f"influxrelay: main: cannot listen on {LOOPBACK}:{port}: ", parent.err)
        self.assertNotIn("Traceback", parent.out + parent.err)
        await until(lambda: not pidfile.exists(), "the daemon's end")
        log = logfile.read_text()
        self.assertIn(f"cannot listen on {LOOPBACK}:{port}: ", log)
        self.assertNotIn("Traceback", log)

    async def test_http_daemon(self) -> None:
        """A daemon that finds its HTTP port taken ends, and its parent shows the line and fails."""
        await self._as_a_daemon(*self.configs()["http"])

    async def test_udp_daemon(self) -> None:
        """A daemon that finds its UDP port taken ends, and its parent shows the line and fails."""
        await self._as_a_daemon(*self.configs()["udp"])


class LogTests(ProgramCase):
    """What the log says, and what it does not."""

    async def test_repeated_failures(self) -> None:
        """Of a backend's identical failures four are logged, then their count as it doubles; its return is one line."""
        backend = self.backend()
        await backend.stop()
        child = await self.started(self.write_config(location(backend)))
        client = await self.connected(child)
        for _ in range(11):
            self.assertEqual((await client.ask(request())).status, 503)
        backend.listen()
        await until(lambda: "failed 10 times" in child.out)
        for _ in range(3):
            self.assertEqual((await client.ask(request())).status, 204)
        await until(lambda: " is back " in child.out)
        about = [line.partition("main: ")[2] for line in child.out.splitlines() if "main: backend one" in line]
        self.assertEqual(len([line for line in about if line.startswith("backend one failed: refused: ")]), 4, about)
        self.assertRegex(about[4], "^backend one failed 5 times in a row: refused: ")
        self.assertRegex(about[5], "^backend one failed 10 times in a row: refused: ")
        self.assertEqual(about[6:], ["backend one is back after 11 failures, the last: refused"])

    async def test_no_secrets(self) -> None:
        """No password, token or Authorization header is in the log, with access-log on and when things go wrong."""
        good, bad, broken = self.backend(), self.backend(answer(401, b"{}")), self.backend(answer(500))
        closed = await self.refusing_backend()
        (self.directory / "token").write_text("SECRET-token-file\n")
        udp = f'[[udp]]\nname = "u"\nbind-addr = "{LOOPBACK}:0"\nbatch-timeout = "1ms"\n'
        for number, backend in enumerate((good, bad, broken, closed)):
            udp += f'[[udp.output]]\nname = "{number}"\nlocation = "{backend.url}?db=d"\n'
            udp += 'username = "SECRET-user"\npassword = "SECRET-udp"\n'
        outputs = [
            f'name = "a"\nlocation = "{broken.url}"\nusername = "SECRET-user"\npassword = "SECRET-password"\n',
            f'name = "b"\nlocation = "{closed.url}"\ntoken = "SECRET-token"\n',
            f'name = "c"\nlocation = "{bad.url}"\ntoken-file = "{self.directory / "token"}"\n',
            f'name = "d"\nlocation = "{good.url}"\n' + udp,
        ]
        child = await self.started(self.write_config(*outputs, listener="access-log = true"))
        basic = b"Authorization: Basic " + base64.b64encode(b"me:SECRET-header")
        token = b"Authorization: Token SECRET-token-header"
        requests = [
            request(b"/write?db=d&u=me&p=SECRET-query", LINE, basic),
            request(b"/write?%70=SECRET-query&db=d&%75=SECRET-query", LINE, token),
            request(b"/write?p=SECRET-query", LINE, token),
            request(b"/write?db=d&precision=x&p=SECRET-query&p=SECRET-query"),
            request(b"/write?db=d&p=SECRET;query"),
            request(b"/write?db=d&p=SECRET%zzquery"),
            request(b"/write?db=d&consistency=x&u=me&p=SECRET-query"),
            request(b"/query?u=me&p=SECRET-query&q=x", b"", basic, method=b"GET"),
            request(b"/ping?u=me&p=SECRET-query", b"", token, method=b"GET"),
            request(b"http://me:SECRET-url@relay/write?db=d", LINE),
            request(b"/write?db=d&p=SECRET-query", b"rubbish\n", basic, b"Content-Encoding: gzip"),
        ]
        for each in requests:
            await self.asked(child, each)
        found = re.search(r"listening for UDP on 127\.0\.0\.1:(\d+)", child.out)
        assert found
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(LINE, (LOOPBACK, int(found[1])))
        await until(lambda: any(b"precision" in each.query for each in good.requests), "the batch")
        child.signal(signal.SIGTERM)
        await self.until_ended(child)
        log = child.out + child.err
        self.assertEqual(log.count("influxrelay.http.site.RelaySite#info"), 1 + len(requests))  # and the start's ping
        self.assertIn("backend a failed: 500", log)
        self.assertIn("backend b failed: refused", log)
        for secret in (b"me:SECRET-header", b"SECRET-user:SECRET-password", b"SECRET-user:SECRET-udp"):
            self.assertNotIn(base64.b64encode(secret).decode().rstrip("="), log)
        self.assertEqual([line for line in log.splitlines() if "SECRET" in line], [])

    async def test_no_access_log(self) -> None:
        """Without access-log a request that goes well leaves no line in the log."""
        child = await self.started(self.write_config(location(self.backend())))
        before = child.out
        for _ in range(5):
            self.assertEqual((await self.asked(child, request())).status, 204)
        child.signal(signal.SIGTERM)
        await self.until_ended(child)
        self.assertIn("Received SIGTERM", child.out.removeprefix(before).splitlines()[0])
