"""What a reload changes of outputs and listeners, and what needs a restart."""

from __future__ import annotations

import socket

from twisted.internet.defer import Deferred

from testing.logs import watch_log
from testing.reloading import ReloadCase, http, to
from testing.scripted import LINE, LOOPBACK, PING, Hold, answer, hang, request, until
from testing.servers import free_port


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
        self.assertIn("main: removed backend one, losing 3 writes (117 B) accepted from", line)

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
