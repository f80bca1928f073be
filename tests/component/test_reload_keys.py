"""Each key of the configuration, and what a reload does with it."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable
from typing import Any

from twisted.trial.runner import TestLoader

from influxrelay.config import schema as config_keys
from testing.reload_keys import CONFIG, ENDPOINTS, HTTP, HTTP_OUTPUT, TABLES, TCP, UDP, UDP_OUTPUT, Key
from testing.reloading import ReloadCase, http, to
from testing.remote_write_case import one_series, post
from testing.scripted import LINE, LOOPBACK, PING, answer, request, until


class KeyTests(ReloadCase):
    """Each key of each table."""

    one: Any
    two: Any

    def test_every_key(self) -> None:
        """What a reload does with each key is decided, and tested."""
        for table, decided in TABLES.items():
            self.assertEqual(sorted(decided), sorted(getattr(config_keys, table)), table)
            for where in decided.values():
                if isinstance(where, str):
                    place = where if where.startswith("test") else f"test_reload.{where}"
                    TestLoader().loadByName(place if place.startswith("tests.") else f"tests.component.{place}")

    async def check(
        self, keys: dict[str, Key | str], text: Callable[[str], str], *, only: str = "", but: str = ""
    ) -> None:
        """Let each key have one value and then another, and look at what is seen."""
        self.start(text(""))
        for name, key in keys.items():
            if isinstance(key, str) or not name.startswith(only) or name.startswith(but):
                continue
            sender, port = self.sender if self.listener.senders else None, self.listener._port
            for value, expected in ((key.before, key.seen_before), (key.after, key.seen_after)):
                await self.reload(text(f"{name} = {value}\n{key.beside}"))
                self.assertEqual(await self.look(key.see), expected, name)
                changes = await self.reload(text(f"{name} = {value}\n{key.beside}"))
                self.assertEqual(changes, [], name)
            changes = await self.reload(text(f"{name} = {key.before}\n{key.beside}"))
            if key.seen_before != key.seen_after:
                self.assertRegex(" ".join(changes), rf"\b({name}|endpoints)\b")
            if sender is not None:
                self.assertIs(self.sender, sender, name)
            self.assertIs(self.listener._port, port, name)

    async def look(self, what: str) -> Any:
        """Return what is seen."""
        method = getattr(self, f"see_{what}", None)
        if method is not None:
            return await method()
        value: Any = self
        for name in what.split("."):
            value = getattr(value, name)
        return value.rpartition("/")[2] if what.startswith("output_config.") else value

    @property
    def fan_out(self) -> Any:
        """The first listener's fan-out."""
        return self.listener.fan_outs[0]

    @property
    def client_limits(self) -> Any:
        """The bounds of the first listener's clients."""
        return self.listener.site.admission.limits

    @property
    def batcher(self) -> Any:
        """The first output of a UDP listener."""
        return self.listener.outputs[0]

    @property
    def output_config(self) -> Any:
        """The first output's configuration."""
        return self.listener.config.outputs[0]

    async def received(self) -> Any:
        """Write, and return what the first backend gets."""
        count = len(self.one.requests)
        await self.submit()
        await until(lambda: len(self.one.requests) > count)
        return self.one.requests[-1]

    async def see_query(self) -> Any:
        """Return what the next write asks for."""
        return (await self.received()).query

    async def see_path(self) -> Any:
        """Return where it goes."""
        return (await self.received()).path

    async def see_remote_write_path(self) -> Any:
        """Return where a remote write goes."""
        count = len(self.one.requests)
        await self.ask(self.listener, post(one_series()))
        await until(lambda: len(self.one.requests) > count)
        return self.one.requests[-1].path

    async def see_remote_write_query(self) -> Any:
        """Return what a remote write asks for."""
        count = len(self.one.requests)
        await self.ask(self.listener, post(one_series()))
        await until(lambda: len(self.one.requests) > count)
        return self.one.requests[-1].query

    async def see_authorization(self) -> Any:
        """Return as whom."""
        return (await self.received()).header("Authorization")

    async def see_encoding(self) -> Any:
        """Return how."""
        return (await self.received()).header("Content-Encoding")

    async def see_status(self) -> Any:
        """Return what a client is told."""
        return (await self.submit()).status

    async def see_status_of_gzip(self) -> Any:
        """Return how a compressed write is answered."""
        packed = request(b"/write?db=db", gzip.compress(LINE), b"Content-Encoding: gzip")
        return (await self.ask(self.listener, packed)).status

    async def see_allowed_origin(self) -> Any:
        """Return which web page may read an answer."""
        found = await self.ask(self.listener, request(b"/write?db=db", LINE, b"Origin: http://page"))
        return found.header("Access-Control-Allow-Origin")

    async def see_second_status(self) -> Any:
        """Return what a client is told who writes twice."""
        await self.submit()
        return (await self.submit()).status

    async def see_status_with_a_failure(self) -> Any:
        """Return what a client is told if a backend fails."""
        self.two.script[0] = answer(500)
        return (await self.submit()).status

    async def see_meaning(self) -> Any:
        """Return what the first rule makes of an answer."""
        return self.sender.settings.answers[0].means

    async def see_ping(self) -> Any:
        """Return the answer to a ping."""
        return (await self.ask(self.listener, PING)).status

    async def see_datagram_query(self) -> Any:
        """Return what the next datagram's write asks for."""
        count = len(self.one.requests)
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"a v=1 1", (LOOPBACK, self.listener._port.getHost().port))
        await until(lambda: len(self.one.requests) > count)
        return self.one.requests[-1].query

    async def see_read_buffer(self) -> Any:
        """Return the size of the socket's buffer."""
        handle = self.listener._port.getHandle()
        return handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2

    # -- the tables

    async def test_config(self) -> None:
        """The keys at the top."""
        self.one = self.backend()
        await self.check(CONFIG, lambda line: http(to(self.one), top=line))

    async def test_http(self) -> None:
        """An HTTP listener's keys take effect for the next request."""
        self.stop_rate_clock()
        self.one, self.two = self.backend(), self.backend()
        await self.check(HTTP, lambda line: http(to(self.one), to(self.two, "two"), listener=line), but="journal")

    async def test_journal(self) -> None:
        """A journal's bounds and habits."""
        self.one = self.backend()
        journal = f'journal = "{self.directory / "journal"}"'
        await self.check(HTTP, lambda line: http(to(self.one), listener=f"{journal}\n{line}"), only="journal")

    async def test_output(self) -> None:
        """An output's keys: the sender stays, and the next request goes as they say."""
        self.one = self.backend()

        def text(line: str) -> str:
            buffer = "" if line.startswith("buffer-size-mb") else "buffer-size-mb = 1\n"
            return http(to(self.one, more=buffer + line))

        await self.check(HTTP_OUTPUT, text)

    async def test_endpoints(self) -> None:
        """The paths below a location."""
        self.one = self.backend()
        base = self.one.url.removesuffix("/write")

        def text(line: str) -> str:
            paths = line.strip() if line.startswith("write =") or not line else f'write = "w", {line.strip()}'
            return http(f'name = "one"\nlocation = "{base}"\nendpoints = {{ {paths} }}')

        await self.check(ENDPOINTS, text)

    async def test_udp(self) -> None:
        """A UDP listener's keys take effect for the next datagram."""
        self.one = self.backend()

        def text(line: str) -> str:
            batches = "" if line.startswith("batch") else 'batch-timeout = "1ms"'
            return "\n".join(
                [
                    "[[udp]]",
                    f'bind-addr = "{LOOPBACK}:0"\nname = "packets"',
                    batches,
                    line,
                    f'[[udp.output]]\nname = "one"\nlocation = "{self.one.url}?db=d"',
                ]
            )

        await self.check(UDP, text, but="journal")

    async def test_tcp(self) -> None:
        """A TCP listener's keys take effect for the next lines."""
        self.one = self.backend()
        await self.check(
            TCP,
            lambda line: (
                f'[[tcp]]\nbind-addr = "{LOOPBACK}:0"\nname = "lines"\n{line}\n'
                f'[[tcp.output]]\nname = "one"\nlocation = "{self.one.url}?db=d"'
            ),
            but="journal",
        )

    async def test_udp_journal(self) -> None:
        """The same of a UDP listener's journal."""
        self.one = self.backend()
        journal = f'journal = "{self.directory / "journal"}"'
        wanted = {name: key for name, key in UDP.items() if name != "journal-on-error"}
        await self.check(
            wanted,
            lambda line: (
                f'[[udp]]\nbind-addr = "{LOOPBACK}:0"\n{journal}\n{line}\n'
                f'[[udp.output]]\nname = "one"\nlocation = "{self.one.url}?db=d"'
            ),
            only="journal",
        )

    async def test_udp_output(self) -> None:
        """The keys of an output for datagrams."""

        def text(line: str) -> str:
            return f'[[udp]]\nbind-addr = "{LOOPBACK}:0"\n[[udp.output]]\nlocation = "{LOOPBACK}:9"\n{line}'

        await self.check(UDP_OUTPUT, text)
