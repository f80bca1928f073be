"""``influxrelay verify`` beside a relay that runs, and with servers that ask for a password."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from influxrelay.config.loader import load
from influxrelay.service.relay_service import RelayService
from testing.scripted import reactor, until
from testing.servers import Influxd, free_port
from testing.verify_case import VerifyCase


class RelayTests(VerifyCase):
    """A relay with a journal."""

    def directory(self) -> Path:
        """Return a directory whose path leaves room for the name of a socket."""
        path = Path(tempfile.mkdtemp(prefix="relay-"))
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def rewrite(self, path: str, old: str, new: str) -> None:
        """Put one text in the place of another, or into a new file."""
        file = Path(path)
        file.write_text(file.read_text().replace(old, new) if old else new)

    async def test_queued(self) -> None:
        """What is queued is said and left out; the relay is told what was found; and it can be watched."""
        journal = f'journal = "{self.directory()}"'
        config = self.configuration(listener=journal, top='shutdown-timeout = "1s"')
        service = RelayService(load(config), reactor)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        listener = service.listeners[0]
        self.assertEqual((await self.write(listener, b"m f=1 1")).status, 204)  # type: ignore[arg-type]
        await self.both(1)
        self.assertEqual((await self.run_command(command=("queues", "pause", "b"), config=config))[0], 0)
        self.assertEqual((await self.write(listener, b"m f=2")).status, 204)  # type: ignore[arg-type]
        code, out, err = await self.run_command(config=config)
        self.assertEqual((code, out), (0, "Equal: 1 window compared by aggregates, 1 point read.\n"), err)
        self.assertRegex(err, r"^influxrelay verify: main: still queued for b: 1 write \(\d+ B\)\n")
        self.assertRegex(err, r"\ninfluxrelay verify: main: points from 20\S+Z on are left out")
        code, out, err = await self.run_command("--until", "2200-01-01T00:00:00Z", config=config)
        self.assertEqual((code, len(err.splitlines())), (1, 1))
        self.assertRegex(out, r"(?m)^missing +b .* 1$")
        (shown,) = (await service.describe())["listeners"]
        told = [(each["scope"], each["differences"], each["points"]) for each in shown["verifications"]]
        self.assertEqual(told, [("part", 1, 2)])
        self.assertEqual((await self.run_command(command=("queues", "resume", "b"), config=config))[0], 0)
        await self.both(2)
        await until(lambda: all(sender.is_idle for sender in listener.senders))  # the relay knows that b has it
        code, out, err = await self.run_command(config=config, terminal=True)
        self.assertEqual((code, out), (0, "Equal: 2 windows compared by aggregates, 2 points read.\n"), err)
        self.assertIn("2 of 2 windows, 2 points read, 0 differences", err)

    async def test_stopped(self) -> None:
        """Of a relay that does not run it is said what its journal holds."""
        journal = f'journal = "{self.directory()}"'
        gone = f'name = "c"\nlocation = "http://127.0.0.1:{free_port()}/write"'
        config = self.configuration(gone, listener=journal, top='shutdown-timeout = "0.1s"')
        service = RelayService(load(config), reactor)
        service.privilegedStartService()
        service.startService()
        self.assertEqual((await self.write(service.listeners[0], b"m f=1")).status, 204)  # type: ignore[arg-type]
        await self.both(1)
        await self._end(service)
        self.rewrite(config, gone, f'name = "c"\nlocation = "{self.a.url}/write"')
        code, _, err = await self.run_command(config=config)
        self.assertEqual(code, 0, err)
        self.assertRegex(
            err, r"main: the relay does not run; its journal holds, not delivered to c: 1 write \(\d+ B\)\n"
        )

    async def test_shards(self) -> None:
        """Each shard is a listener of its own."""
        path = str(self.directory() / "relay.toml")
        outputs = "".join(
            f'[[http.shard.output]]\nname = "{name}"\nlocation = "{each.url}/write"\n'
            for name, each in zip("ab", self.servers, strict=True)
        )
        self.rewrite(
            path,
            "",
            f'[[http]]\nname = "main"\nbind-addr = "127.0.0.1:{free_port()}"\nshard-key = "measurement"\n'
            f'[[http.shard]]\nname = "s1"\n{outputs}',
        )
        self.both_have("m f=1 1")
        code, _, err = await self.run_command("--listener", "main", config=path)
        line = "influxrelay verify: main has shards; name one of them with --listener: main/s1\n"
        self.assertEqual((code, err), (2, line))
        self.assertEqual((await self.run_command("--listener", "main/s1", config=path))[0], 0)

    async def test_credentials(self) -> None:
        """The outputs' own credentials are used, else those of the command line; without any it cannot be told."""
        directory = self.directory()
        (directory / "secret").write_text("sesame\n")
        server = Influxd(directory / "influxd", user=("root", "sesame"))
        await deferToThread(server.start)
        self.addCleanup(server.kill)

        async def verified(credentials: str, *arguments: str) -> tuple[int, str]:
            text = f'[[http]]\nname = "main"\nbind-addr = "127.0.0.1:{free_port()}"\n'
            text += "".join(
                f'[[http.output]]\nname = "{name}"\nlocation = "{server.url}/write"\n{credentials}\n' for name in "ab"
            )
            (directory / "relay.toml").write_text(text)
            config = str(directory / "relay.toml")
            code, _, err = await self.run_command(*arguments, config=config, command=("verify",))
            self.assertNotIn("sesame", err)
            return code, err

        given = ("--user", "root", "--password-file", str(directory / "secret"))
        self.assertEqual((await verified('username = "root"\npassword = "sesame"'))[0], 0)
        self.assertEqual((await verified("", *given))[0], 0)
        code, err = await verified('username = "root"\npassword = "wrong"', *given)
        self.assertEqual(code, 2)
        self.assertIn("answered 401: authorization failed", err)
        code, err = await verified("")
        self.assertEqual(code, 2)
        self.assertIn("answered 401: unable to parse authentication credentials", err)
