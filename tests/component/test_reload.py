"""A configuration that is read again while the relay works: what comes, goes and moves, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, optionsForClientTLS

from influxrelay.config.loader import load
from influxrelay.operations.views import Refused
from influxrelay.service.relay_service import RelayService
from testing.certificates import Authority
from testing.logs import watch_log
from testing.program import BIN, COMMANDS, Child, ProgramCase, location
from testing.reloading import ReloadCase, http, to
from testing.scripted import (
    LINE,
    LOOPBACK,
    PING,
    Client,
    Hold,
    answer,
    hang,
    reactor,
    request,
    together,
    until,
)
from testing.servers import free_port
from tests.soak import reloads


class OutputTests(ReloadCase):
    """Backends."""

    async def test_come_and_go(self) -> None:
        """An output that is added gets the next write, and one that is removed does not; the port stays open."""
        one, two = self.backend(), self.backend()
        self.start(http(to(one)))
        port = self.listener._port
        await self.submit(b"a v=1 1")
        self.assertEqual(await self.reload(http(to(one), to(two, "two"))), ["main: output two added"])
        await self.submit(b"a v=1 2")
        await until(lambda: two.requests)
        last = http(to(two, "zwei"))
        self.assertEqual(await self.reload(last), ["main: output zwei: name", "main: output one removed"])
        await self.submit(b"a v=1 3")
        self.assertEqual([each.body for each in one.requests], [b"a v=1 1", b"a v=1 2"])
        self.assertEqual([each.body for each in two.requests], [b"a v=1 2", b"a v=1 3"])
        self.assertEqual(await self.reload(last), [])
        self.assertIs(self.listener._port, port)
        self.assertIn("not valid TOML", await self.refused("["))
        self.assertEqual(await self.last_reload_successful(), 0)
        self.assertEqual(await self.reload(last), [])
        self.assertEqual(await self.last_reload_successful(), 1)

    async def test_apis(self) -> None:
        """The API of an output, its organization and its buckets can change; the queue stays."""
        one = self.backend()
        base = f'name = "one"\nlocation = "{one.url.removesuffix("/write")}"\nbuffer-size-mb = 1\n'
        self.start(http(base))
        sender = self.sender
        for lines, path, query in (
            ("", b"/write", b"db=db"),
            ('api = "v2"\norg = "a"', b"/api/v2/write", b"org=a&bucket=db&precision=ns"),
            ('api = "v2"\norg = "b"', b"/api/v2/write", b"org=b&bucket=db&precision=ns"),
            ('api = "v2"\norg = "b"\nbuckets = { db = "c" }', b"/api/v2/write", b"org=b&bucket=c&precision=ns"),
            ('api = "v3"\nbuckets = { db = "c" }', b"/api/v3/write_lp", b"db=c&precision=nanosecond"),
        ):
            await self.reload(http(base + lines))
            self.assertEqual(await self.reload(http(base + lines)), [])
            self.assertEqual((await self.submit()).status, 204)
            self.assertEqual((one.requests[-1].path, one.requests[-1].query), (path, query))
        changes = await self.reload(http(base + 'api = "v2"\norg = "a"'))
        self.assertEqual(changes, ["main: output one: api, buckets, endpoints, org"])
        self.assertIs(self.sender, sender)

    async def test_removed_in_flight(self) -> None:
        """What an output that is removed has is finished, in order, before it can return."""
        held = Hold(answer(204))
        one = self.backend(held)
        two = self.backend()
        text = http(to(one, more="buffer-size-mb = 1"), to(two, "two"), listener='consistency = "all"')
        self.start(text)
        clients = [await self.client(self.listener) for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(request(body=b"a v=1 %d" % number))
        await until(lambda: len(two.requests) and self.sender.queues.waiting()[0] == 2)
        await self.reload(http(to(two, "two"), listener='consistency = "all"'))
        self.assertEqual((await self.submit()).status, 204)
        again = Deferred.fromCoroutine(self.reload(text))
        for _ in range(50):  # long enough for a reload that does not wait
            self.assertEqual((await self.submit()).status, 204)
        self.assertNoResult(again)
        held.release()
        self.assertEqual([(await client.answer()).status for client in clients], [204] * 3)
        self.assertEqual(await again, ["main: output one added"])
        lines = b"\n".join(each.body for each in one.requests).split()
        self.assertEqual([line for line in lines if line.isdigit()], [b"0", b"1", b"2"])

    async def test_removed_for_good(self) -> None:
        """A removed output that takes nothing is given up after the shutdown timeout; the log says what it lacks."""
        log = watch_log(self)
        one, two = self.backend(hang), self.backend()
        self.start(http(to(one, more="buffer-size-mb = 1"), to(two, "two"), top='shutdown-timeout = "300ms"'))
        for _ in range(3):
            await self.submit()
        await until(lambda: one.requests)
        await self.reload(http(to(two, "two"), top='shutdown-timeout = "300ms"'))
        await until(lambda: not one.connections, "the end of the connection")
        await until(lambda: not self.listener.leaving)
        (line,) = [line for line in log if "removed backend" in line]
        self.assertIn("main: removed backend one, losing 3 write(s) (117 B) accepted from", line)

    async def test_renamed_and_swapped(self) -> None:
        """Outputs that are renamed, or exchange their names, keep their senders, with what waits."""
        one, two = self.backend(), self.backend()
        await one.stop()
        buffer = "buffer-size-mb = 1"
        self.start(http(to(one, "one", buffer), to(two, "two", buffer)))
        await self.submit()
        first, second = self.listener.senders
        await until(lambda: first.queues.waiting()[0] == 1)
        swapped = await self.reload(http(to(two, "one", buffer), to(one, "two", buffer)))
        self.assertEqual(swapped, ["main: output one: name", "main: output two: name"])
        self.assertEqual(self.listener.senders, [second, first])
        self.assertEqual([sender.name for sender in self.listener.senders], ["one", "two"])
        self.assertEqual(first.queues.outstanding()[0], 1)
        one.listen()
        await self.reload(http(to(two, "new", buffer), to(one, "old", buffer)))
        await until(lambda: one.requests)

    async def test_moved(self) -> None:
        """What waits for an output goes to where it is now, at once, in order; what is in flight ends where it was."""
        for queue in ("buffer-size-mb = 1", ""):
            held = Hold(answer(204))
            old, new = self.backend(held), self.backend()
            self.start(http(to(old, more=queue)))
            clients = [await self.client(self.listener) for _ in range(3)]
            for number, client in enumerate(clients):
                client.send(request(body=b"a v=1 %d" % number))
                await until(lambda: self.sender.queues.waiting()[0] == number)
            self.assertEqual(await self.reload(http(to(new, more=queue))), ["main: output one: location"])
            self.assertEqual(new.requests, [])
            held.release()
            self.assertEqual([(await client.answer()).status for client in clients], [204] * 3)
            self.assertEqual([each.body for each in old.requests], [b"a v=1 0"])
            self.assertEqual([each.body for each in new.requests], [b"a v=1 1\na v=1 2\n"])
            await until(lambda: not old.connections, "the end of the old connection")
            await self.service.stopService()

    async def test_moved_out_of_trouble(self) -> None:
        """A backend in trouble is asked at once after its output has changed, however long its pause would be."""
        old, new = self.backend(answer(503, b"", (b"Retry-After", b"3600"))), self.backend()
        well = to(self.backend(), "well")
        self.start(http(to(old, more="buffer-size-mb = 1"), well))
        self.assertEqual((await self.submit()).status, 204)
        await until(lambda: self.sender.status.trouble)
        await self.reload(http(to(new, more="buffer-size-mb = 1"), well))
        await until(lambda: new.requests)
        await until(lambda: self.sender.status.trouble is None)

    async def test_database_created(self) -> None:
        """A backend that waits for a database is given it as soon as that is allowed."""
        missing = answer(404, b'{"error":"database not found: \\"db\\""}')
        held = Hold(missing)
        one, well = self.backend(held), to(self.backend(), "well")
        buffer = 'buffer-size-mb = 1\nmax-delay-interval = "1h"'
        self.start(http(to(one, more=buffer), well))
        self.assertEqual((await self.submit()).status, 204)
        held.release()
        await until(self.sender.queues.missing_databases)
        one.script[0] = missing
        one.script.extend([answer(200), answer(204)])
        await self.reload(http(to(one, more=f"{buffer}\ncreate-databases = true"), well))
        await until(lambda: not self.sender.queues.missing_databases() and not self.sender.queues.outstanding()[0])
        self.assertIn(b"CREATE+DATABASE", one.requests[-2].query)
        self.assertEqual(one.requests[-1].body, LINE)

    async def test_secrets_in_files(self) -> None:
        """A secret that changes in its file holds from the reload on, and is not shown."""
        one = self.backend()
        secret = self.directory / "secret"
        for more, expected in (
            (f'token-file = "{secret}"', [b"Token first", b"Token second"]),
            (f'username = "me"\npassword-file = "{secret}"', [b"Basic bWU6Zmlyc3Q=", b"Basic bWU6c2Vjb25k"]),
        ):
            secret.write_text("first\n")
            self.start(http(to(one, more=more)))
            await self.submit()
            secret.write_text("second\n")
            (change,) = await self.reload(http(to(one, more=more)))
            self.assertNotIn("second", change)
            await self.submit()
            self.assertEqual([each.header("Authorization") for each in one.requests[-2:]], expected)
            secret.unlink()
            self.assertIn("secret", await self.refused(http(to(one, more=more))))
            self.assertEqual((await self.submit()).status, 204)
            await self.service.stopService()

    async def test_filters(self) -> None:
        """Filters hold for the next write, whichever of their keys has changed."""
        one, two = self.backend(), self.backend()
        text = http(to(one), to(two, "two"))
        rules = (
            ("", [b"a", b"b"]),
            ('outputs = ["one"]\nmeasurement-expression = "a"', [b"a"]),
            ('outputs = ["one"]\nmeasurement-expression = "b"', [b"b"]),
            ('outputs = ["two"]\nmeasurement-expression = "b"', [b"a", b"b"]),
            ('outputs = ["one"]\ntag-expression = "x"', [b"a"]),
            ("", [b"a", b"b"]),
        )
        self.start(text)
        for rule, expected in rules:
            table = f'[[filter]]\ntype = "measurement"\n{rule}\n' if rule else ""
            if "tag-expression" in rule:
                table = table.replace('"measurement"', '"tag"')
            await self.reload(table + text)
            await self.submit(b"a,x=1 v=1 1\nb,y=1 v=1 1\n")
            self.assertEqual([line[:1] for line in one.requests[-1].body.splitlines()], expected, rule)

    async def test_first_and_last_buffer(self) -> None:
        """A listener whose first queue is added, and whose last is removed, goes on."""
        one, two = self.backend(), self.backend()
        self.start(http(to(one)))
        for more in (1, 0):
            await self.reload(http(to(one), *[to(two, "two", "buffer-size-mb = 1")] * more))
            self.assertEqual((await self.submit()).status, 204)

    async def test_with_a_journal(self) -> None:
        """Under a journal a removed backend holds nothing back, and one that returns goes on where it was."""
        one, two = self.backend(), self.backend()
        await two.stop()
        listener = f'journal = "{self.directory / "journal"}"'
        both, only = (http(*outputs, listener=listener) for outputs in ((to(one), to(two, "two")), (to(one),)))
        self.start(both)
        for number in range(3):
            await self.submit(b"a v=1 %d" % number)
        await self.reload(http(to(one, "eins"), to(two, "zwei"), listener=listener))
        await self.submit(b"a v=1 3")
        self.assertEqual(await self.reload(only), ["main: output one: name", "main: output zwei removed"])
        writer = self.listener.writer
        await until(lambda: not self.listener.leaving)
        await until(lambda: not writer._house.cursors.behind)
        two.listen()
        await self.reload(both)
        await self.submit(b"a v=1 4")
        await until(lambda: two.requests)
        self.assertIn(b"a v=1 4", two.requests[-1].body)
        await until(lambda: not writer._house.cursors.behind)
        depths = {name: each.active for name, each in (await writer.contents()).depths.items()}
        self.assertEqual(depths, {"one": True, "two": True})


class RestartTests(ReloadCase):
    """What cannot change while the relay runs."""

    async def test_buffer(self) -> None:
        """A buffer that is begun or ended is refused, with its key; nothing changes, also not what could."""
        one = self.backend()
        self.start(http(to(one)))
        words = await self.refused(http(to(one, more="buffer-size-mb = 1"), listener='consistency = "all"'))
        key = "http[0].output[0].buffer-size-mb"
        self.assertEqual(words, f"{self.path}: {key}: to begin or end a buffer needs a restart")
        self.assertEqual(self.listener.fan_outs[0]._consistency, "one")
        self.assertEqual(self.service.config.http[0].consistency, "one")
        self.assertEqual(await self.reload(http(to(one), listener='consistency = "all"')), ["main: consistency"])

    async def test_journal(self) -> None:
        """A journal that is begun, ended or moved is refused, with its key."""
        one = self.backend()
        journal = f'journal = "{self.directory / "a"}"'
        words = f"{self.path}: http[0].journal: another journal, or to begin or end one, needs a restart"
        self.start(http(to(one), listener=journal))
        self.assertEqual(await self.refused(http(to(one))), words)
        self.assertEqual(await self.refused(http(to(one), listener=f'journal = "{self.directory / "b"}"')), words)
        await self.service.stopService()
        self.start(http(to(one)))
        self.assertEqual(await self.refused(http(to(one), listener=journal)), words)
        self.assertFalse((self.directory / "b").exists())

    async def test_buffer_beside_a_journal(self) -> None:
        """Beside a journal, where it is not used, a buffer can come and go."""
        one = self.backend()
        listener = f'journal = "{self.directory / "a"}"'
        self.start(http(to(one), listener=listener))
        await self.reload(http(to(one, more="buffer-size-mb = 1"), listener=listener))


class ListenerTests(ReloadCase):
    """Listeners."""

    async def test_come_and_go(self) -> None:
        """A listener that is added takes writes at once; one that is removed answers what is in flight, and drains."""
        held = Hold(answer(204))
        one, two = self.backend(held), self.backend()
        web = http(to(one, more="buffer-size-mb = 1"), listener=f'journal = "{self.directory / "one"}"')
        journal = self.directory / "two"
        other = http(to(two), listener=f'journal = "{journal}"').replace("main", "other")
        packets = f'[[udp]]\nname = "packets"\nbind-addr = "{LOOPBACK}:0"\n[[udp.output]]\nlocation = "{two.url}?db=d"'
        self.start(web)
        main = self.listener
        client, idle = await self.client(main), await self.client(main)
        self.assertEqual((await idle.ask(PING)).status, 204)
        client.send(request())
        await until(lambda: one.requests)
        threads = [each._thread for each in main.writer._workers]
        added = await self.reload(f"{web}\n{other}\n{packets}")
        self.assertEqual(added, ["other: added", "packets: added"])
        names = [each.name for each in self.service.listeners]
        self.assertEqual(names, ["main", "other", "packets"])
        self.assertTrue(all(each.is_ready for each in self.service.listeners))
        self.assertEqual((await self.ask(self.http(self.service, 1), request())).status, 204)
        self.assertEqual(await self.reload(f"{other}\n{packets}"), ["main: removed"])
        await idle.end()
        held.release()
        self.assertEqual((await client.answer()).status, 204)
        await until(lambda: main.parent is None and not self.service._leaving)
        self.assertFalse(any(each is not None and each.is_alive() for each in threads))
        self.assertEqual(await self.reload(f"{web}\n{other}"), ["main: added", "packets: removed"])
        self.assertEqual((await self.submit()).status, 204)

    async def test_moved(self) -> None:
        """With another address the new port is open before the old one closes; who is connected stays."""
        one = self.backend()
        ports = [free_port(), free_port()]
        first, second = (http(to(one), bind=f"{LOOPBACK}:{port}") for port in ports)
        self.start(first)
        client = await self.client(self.listener)
        self.assertEqual((await client.ask(PING)).status, 204)
        self.assertEqual(await self.reload(second), ["main: bind-addr"])
        self.assertEqual(self.listener._port.getHost().port, ports[1])
        self.assertEqual((await self.submit()).status, 204)
        self.assertEqual((await client.ask(request())).status, 204)
        with socket.socket() as probe:
            await until(lambda: probe.connect_ex((LOOPBACK, ports[0])), "the closed port")
        path = self.directory / "relay.sock"
        await self.reload(http(to(one), bind=f"unix:{path}"))
        self.assertEqual((await self.submit()).status, 204)
        self.assertEqual(await self.reload(http(to(one), bind=f"unix:{path}")), [])
        await self.reload(second)
        self.assertEqual((await self.submit()).status, 204)

    async def test_renamed(self) -> None:
        """A listener with another name at the same address is the same, and so is one at another with its journal."""
        one = self.backend()
        port, other = free_port(), free_port()
        listener = f'journal = "{self.directory / "journal"}"'
        self.start(http(to(one), bind=f"{LOOPBACK}:{port}", listener=listener))
        main, before = self.listener, self.listener._port
        text = http(to(one), bind=f"{LOOPBACK}:{port}", listener=listener)
        self.assertEqual(await self.reload(text.replace("main", "new")), ["new: name"])
        self.assertEqual((self.listener.name, self.listener.fan_outs[0].name), ("new", "new"))
        self.assertIs(self.listener._port, before)
        last = http(to(one), bind=f"{LOOPBACK}:{other}", listener=listener).replace("main", "last")
        self.assertEqual(await self.reload(last), ["last: bind-addr, name"])
        self.assertIs(self.listener, main)

    async def test_exchanged(self) -> None:
        """Listeners that exchange their addresses, or their names, keep their ports."""
        one, two = self.backend(), self.backend()
        ports = [free_port(), free_port()]

        def text(*names: str) -> str:
            return "\n".join(
                http(to(backend), bind=f"{LOOPBACK}:{port}").replace("main", name)
                for backend, port, name in zip((one, two), ports, names, strict=True)
            )

        self.start(text("a", "b"))
        before = [each._port for each in self.service.listeners]
        self.assertEqual(await self.reload(text("b", "a")), ["b: name", "a: name"])
        self.assertEqual([each._port for each in self.service.listeners], before)


def asking(authority: Authority) -> CertificateOptions:
    """Return what makes a server ask its clients for a certificate of an authority."""
    server = PrivateCertificate.loadPEM(Path(authority.issue()).read_bytes())
    return CertificateOptions(
        privateKey=server.privateKey.original,
        certificate=server.original,
        trustRoot=Certificate.loadPEM(Path(authority.ca_file()).read_bytes()),
    )


class CertificateTests(ReloadCase):
    """TLS, of our own and of the backends."""

    def pem(self, authority: Authority) -> Path:
        """Return the one file in which certificates are replaced."""
        path = self.directory / "relay.pem"
        shutil.copy(authority.issue(), path)
        return path

    def trust(self, authority: Authority) -> Any:
        """Return what makes a client believe one authority only."""
        root = Certificate.loadPEM(Path(authority.ca_file()).read_bytes())
        return optionsForClientTLS(LOOPBACK, trustRoot=root)

    async def connects(self, authority: Authority) -> bool:
        """Tell whether a client that believes an authority gets an answer."""
        try:
            client = await self.client(self.listener, tls=self.trust(authority))
            found = await client.ask(PING)
        except AssertionError:
            return False
        return found.status == 204

    async def test_served(self) -> None:
        """New content of the same file is shown to who connects next; who is connected stays; TLS comes and goes."""
        one = self.backend()
        old, new = (Authority(str(self.directory / name), name) for name in ("old", "new"))
        path = self.pem(old)
        port = free_port()
        plain = http(to(one), bind=f"{LOOPBACK}:{port}")
        text = http(to(one), bind=f"{LOOPBACK}:{port}", listener=f'ssl-combined-pem = "{path}"')
        self.start(text)
        client = await self.client(self.listener, tls=self.trust(old))
        self.assertEqual((await client.ask(PING)).status, 204)
        self.assertEqual(await self.reload(text), [])
        before = self.listener._port
        self.pem(new)
        self.assertEqual(await self.reload(text), ["main: certificate"])
        self.assertEqual([await self.connects(each) for each in (old, new)], [False, True])
        self.assertEqual((await client.ask(request())).status, 204)
        path.write_text("-----BEGIN CERTIFICATE-----\nrubbish\n-----BEGIN PRIVATE KEY-----\n")
        self.assertIn(f"main: {path}: not a usable PEM file: ", await self.refused(text))
        self.assertTrue(await self.connects(new))
        self.assertEqual(await self.reload(plain), ["main: ssl-combined-pem"])
        self.assertEqual((await self.submit()).status, 204)
        self.pem(old)
        await self.reload(text)
        self.assertTrue(await self.connects(old))
        self.assertIs(self.listener._port, before)

    async def test_endpoint_string(self) -> None:
        """The files that an endpoint of Twisted's names are read again, too."""
        one = self.backend()
        old, new = (Authority(str(self.directory / name), name) for name in ("old", "new"))
        path = self.pem(old)
        endpoint = f"ssl:{free_port()}:interface={LOOPBACK}:privateKey={path}:certKey={path}"
        self.start(http(to(one), bind=endpoint))
        self.assertTrue(await self.connects(old))
        self.pem(new)
        await self.reload(http(to(one), bind=endpoint))
        self.assertEqual([await self.connects(each) for each in (old, new)], [False, True])

    async def test_under_load(self) -> None:
        """While the certificate is replaced again and again, every client that connects gets its answer."""
        one = self.backend()
        authority = Authority(str(self.directory / "authority"))
        path = self.pem(authority)
        text = http(to(one), listener=f'ssl-combined-pem = "{path}"')
        self.start(text)
        over = False
        counts = []

        async def connect_all_the_time() -> None:
            count = 0
            while not over:
                client = await self.client(self.listener, tls=self.trust(authority))
                self.assertEqual((await client.ask(request())).status, 204)
                client.vanish()
                count += 1
            counts.append(count)

        async def replace() -> None:
            nonlocal over
            try:
                for _ in range(10):
                    self.pem(authority)
                    self.assertEqual(await self.reload(text), ["main: certificate"])
                    seen = len(one.requests)
                    await until(lambda: len(one.requests) > seen + 4)
            finally:
                over = True

        await together(replace(), *(connect_all_the_time() for _ in range(3)))
        self.assertGreater(min(counts), 0)

    async def test_of_backends(self) -> None:
        """Which certificates of backends are believed, and which is shown to them, holds for the next connection."""
        right, wrong = (Authority(str(self.directory / name), name) for name in ("right", "wrong"))
        one = self.backend(tls=asking(right))
        believed, shown = self.directory / "believed.pem", self.directory / "shown.pem"
        shutil.copy(wrong.ca_file(), believed)
        shutil.copy(wrong.issue(), shown)
        both = f'ca-file = "{believed}"\nclient-certificate = "{shown}"'
        self.start(http(to(one, more=both)))
        self.assertEqual((await self.submit()).status, 503)
        shutil.copy(right.ca_file(), believed)
        shutil.copy(right.issue(), shown)
        self.assertEqual((await self.submit()).status, 503)
        sender = self.sender
        self.assertEqual(await self.reload(http(to(one, more=both))), ["main: output one: content of its PEM files"])
        self.assertEqual((await self.submit()).status, 204)
        self.assertEqual(await self.reload(http(to(one, more=both))), [])
        only = f'ca-file = "{believed}"'
        self.assertEqual(await self.reload(http(to(one, more=only))), ["main: output one: client-certificate"])
        self.assertEqual((await self.submit()).status, 503)
        unseen = f'skip-tls-verification = true\nclient-certificate = "{shown}"'
        await self.reload(http(to(one, more=unseen)))
        self.assertEqual((await self.submit()).status, 204)
        shown.write_text("-----BEGIN CERTIFICATE-----\nx\n-----BEGIN PRIVATE KEY-----\n")
        self.assertIn("not a usable PEM file", await self.refused(http(to(one, more=unseen))))
        self.assertEqual((await self.submit()).status, 204)
        self.assertIs(self.sender, sender)


class UDPTests(ReloadCase):
    """UDP listeners."""

    def packets(self, *outputs: str, name: str = "packets", bind: str = f"{LOOPBACK}:0", listener: str = "") -> str:
        """Return a configuration with a UDP listener."""
        lines = ["[[udp]]", f'name = "{name}"', f'bind-addr = "{bind}"', 'batch-timeout = "1ms"', listener]
        return "\n".join(lines + [f"[[udp.output]]\n{each}" for each in outputs])

    def send(self, *lines: bytes) -> None:
        """Send datagrams to the first listener."""
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for line in lines:
                sender.sendto(line, (LOOPBACK, self.listener._port.getHost().port))

    async def test_renamed(self) -> None:
        """A listener with another name at the same address is the same, with its counts."""
        port = free_port("udp")
        out = f'location = "{LOOPBACK}:9"'
        self.start(self.packets(out, bind=f"{LOOPBACK}:{port}"))
        self.send(LINE)
        await until(lambda: self.listener.protocol.lines_in)
        before = self.listener
        self.assertEqual(await self.reload(self.packets(out, name="new", bind=f"{LOOPBACK}:{port}")), ["new: name"])
        self.assertIs(self.listener, before)
        self.assertEqual((before.protocol.name, before.protocol.lines_in), ("new", 1))

    async def test_moved(self) -> None:
        """With another address datagrams are received there; the buffer is as large as configured."""
        ports = [free_port("udp"), free_port("udp")]
        one = self.backend()
        out = f'location = "{one.url}?db=d"'
        self.start(self.packets(out, bind=f"{LOOPBACK}:{ports[0]}"))
        self.send(b"a v=1 1")
        await until(lambda: one.requests)
        moved = self.packets(out, bind=f"{LOOPBACK}:{ports[1]}", listener="read-buffer = 9000")
        self.assertEqual(await self.reload(moved), ["packets: bind-addr, read-buffer"])
        self.assertEqual(self.listener._port.getHost().port, ports[1])
        self.send(b"a v=1 2")
        await until(lambda: len(one.requests) == 2)
        handle = self.listener._port.getHandle()
        self.assertEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), 18000)
        protocol = self.listener.protocol
        await until(lambda: protocol.numPorts == 1, "the end of the old port")
        self.assertIs(protocol.transport, self.listener._port)
        with socket.socket(type=socket.SOCK_DGRAM) as taken:
            taken.bind((LOOPBACK, 0))
            busy = self.packets(out, bind=f"{LOOPBACK}:{taken.getsockname()[1]}")
            self.assertIn("packets: cannot listen on", await self.refused(busy))
        self.send(b"a v=1 3")
        await until(lambda: len(one.requests) == 3)

    async def test_outputs(self) -> None:
        """Outputs come, go and move, of both kinds; what was collected before goes where it would have gone."""
        one, two = self.backend(), self.backend()
        with socket.socket(type=socket.SOCK_DGRAM) as first, socket.socket(type=socket.SOCK_DGRAM) as second:
            for each in (first, second):
                each.bind((LOOPBACK, 0))
                each.setblocking(False)
            places = [each.getsockname()[1] for each in (first, second)]
            late = 'batch-timeout = "1h"'
            text = self.packets(f'name = "one"\nlocation = "{one.url}?db=d"').replace('batch-timeout = "1ms"', late)
            self.start(text)
            self.send(b"a v=1 1")
            await until(lambda: self.listener.protocol.lines_in)
            outputs = [f'name = "one"\nlocation = "{two.url}?db=e"', f'name = "u"\nlocation = "{LOOPBACK}:{places[0]}"']
            changes = await self.reload(self.packets(*outputs))
            self.assertEqual(changes[1:], ["packets: output one: location", "packets: output u added"])
            await until(lambda: one.requests)
            self.send(b"a v=1 2")
            await until(lambda: two.requests)
            self.assertEqual((one.requests[0].query, one.requests[0].body), (b"db=d&precision=ns", b"a v=1 1\n"))
            self.assertEqual((two.requests[0].query, two.requests[0].body), (b"db=e&precision=ns", b"a v=1 2\n"))
            await until(lambda: _received(first) == b"a v=1 2")
            moved = f'name = "u"\nlocation = "localhost:{places[1]}"'
            self.assertEqual(await self.reload(self.packets(moved)), _MOVED)
            sender: Any = self.listener.outputs[0]
            await until(lambda: sender.address == (LOOPBACK, places[1]), "the look-up")
            self.send(b"a v=1 3")
            await until(lambda: _received(second) == b"a v=1 3")
            self.assertEqual(await self.reload(self.packets(outputs[0])), _BACK)
            await until(lambda: sender.transport is None)
            self.send(b"a v=1 4")
            await until(lambda: len(two.requests) == 2)

    async def test_with_a_journal(self) -> None:
        """Under a journal the outputs of a UDP listener come and go as those of any other."""
        one, two = self.backend(), self.backend()
        listener = f'journal = "{self.directory / "journal"}"'
        outputs = [f'name = "{name}"\nlocation = "{each.url}?db=d"' for name, each in (("one", one), ("two", two))]
        self.start(self.packets(outputs[0], listener=listener))
        self.send(b"a v=1 1")
        await until(lambda: one.requests)
        await self.reload(self.packets(*outputs, listener=listener))
        self.send(b"a v=1 2")
        await until(lambda: two.requests)
        await self.reload(self.packets(outputs[1], listener=listener))
        self.send(b"a v=1 3")
        await until(lambda: len(two.requests) == 2)
        self.assertEqual([each.body for each in one.requests], [b"a v=1 1\n", b"a v=1 2\n"])

    async def test_removed_before_the_batch(self) -> None:
        """What was collected for a backend that is removed is in the journal first, and then gets to it."""
        one, two = self.backend(), self.backend()
        listener = f'journal = "{self.directory / "journal"}"'
        outputs = [f'name = "{name}"\nlocation = "{each.url}?db=d"' for name, each in (("one", one), ("two", two))]
        self.start(self.packets(*outputs, listener=listener).replace('"1ms"', '"1h"'))
        self.send(b"a v=1 1")
        await until(lambda: self.listener.protocol.lines_in)
        await self.reload(self.packets(outputs[1], listener=listener))
        await until(lambda: not self.listener.leaving)
        self.assertEqual([each.body for each in one.requests], [b"a v=1 1\n"])
        await until(lambda: two.requests)


_MOVED = ["packets: output u: location", "packets: output one removed"]
_BACK = ["packets: output one added", "packets: output u removed"]


def _received(listener: socket.socket) -> bytes:
    """Return a datagram if there is one."""
    try:
        return listener.recv(1000)
    except BlockingIOError:
        return b""


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
        self.assertEqual(code, 1)
        self.assertRegex(words, r"^influxrelay: .*: http\[0\]\.output\[0\]\.buffer-size-mb: .* needs a restart\n$")
        self.write_config(location(backend), top=top + "\nunknown = 1")
        code, words = await self._command(*asked)
        self.assertEqual((code, words.count("\n")), (1, 1))
        self.assertIn("unknown key", words)
        socket_path = str(self.directory / "admin.sock")
        code, words = await self._command("--socket", socket_path, "reload")
        self.assertEqual((code, words.count("\n")), (1, 1))
        self.assertIn("unknown key", words)
        child.signal(signal.SIGTERM)
        await self.until_ended(child)
        self.write_config(location(backend), top=top)
        code, words = await self._command(*asked)
        self.assertEqual((code, "needs a running relay" in words), (1, True))


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
