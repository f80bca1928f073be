"""Each key of the configuration, and what a reload does with it."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable
from typing import Any

import attrs
from twisted.trial.runner import TestLoader

from influxrelay.config import schema as config_keys
from testing.reloading import ReloadCase, http, to
from testing.remote_write_case import one_series, post
from testing.scripted import LINE, LOOPBACK, PING, answer, request, until


@attrs.frozen
class Key:
    """What a key does: two values in TOML, and what is seen of each.

    :ivar see: the name of a method of the test that tells, or what to look up from the test.
    :ivar beside: other lines that are needed.
    """

    before: str
    after: str
    see: str
    seen_before: Any
    seen_after: Any
    beside: str = ""


MB = 1024 * 1024
RULES = ('[{status = 404, means = "retry"}]', '[{status = 404, means = "hold"}]')
SHARED_JOURNAL = "tests.unit.config.test_shared_journals.SharedJournalTests.test_reload"
JOURNAL: dict[str, Key | str] = {
    "journal": "RestartTests.test_journal",
    **dict.fromkeys(("journal-ca-file", "journal-credentials-file", "journal-lease"), SHARED_JOURNAL),
    "journal-max-mb": Key("7", "8", "listener.writer._limits.max_bytes", 7 * MB, 8 * MB),
    "journal-max-age": Key('"7s"', '"8s"', "listener.writer._limits.max_age", 7.0, 8.0),
    "journal-full": Key('"reject"', '"drop-oldest"', "listener.writer._limits.drop_oldest", False, True),
    "journal-sync": Key('"normal"', '"full"', "listener.writer._tail.sync", False, True),
    "journal-timeout": Key('"7s"', '"8s"', "listener.writer._timeout", 7.0, 8.0),
    "journal-on-error": Key('"relay"', '"refuse"', "fan_out.hand_out.refuses_unjournaled", False, True),
}
HTTP: dict[str, Key | str] = {
    "name": "ListenerTests.test_renamed",
    "bind-addr": "ListenerTests.test_moved",
    "ssl-combined-pem": "CertificateTests.test_served",
    "default-retention-policy": Key('""', '"week"', "query", b"db=db", b"db=db&rp=week"),
    "default-ping-response": Key("204", "200", "ping", 204, 200),
    "health-timeout-ms": Key("1000", "2000", "sender.backend._ping_timeout", 1.0, 2.0),
    "rate-limit": Key("0", "1", "second_status", 204, 429),
    "burst-limit": Key("1", "2", "second_status", 429, 204, beside="rate-limit = 1"),
    "max-body-size": Key("1000", "10", "status", 204, 413),
    "max-decoded-size": Key("1000", "10", "status_of_gzip", 204, 413),
    "prometheus-database": Key('"a"', '"b"', "remote_write_query", b"db=a", b"db=b"),
    "cors-origins": Key('["*"]', "[]", "allowed_origin", b"http://page", None),
    "max-connections": Key("7", "8", "client_limits.connections", 7, 8),
    "max-in-flight-mb": Key("30", "31", "client_limits.in_flight", 30 * MB, 31 * MB),
    "header-timeout": Key('"7s"', '"8s"', "client_limits.header_timeout", 7.0, 8.0),
    "body-timeout": Key('"7s"', '"8s"', "client_limits.body_timeout", 7.0, 8.0),
    "idle-timeout": Key('"7s"', '"8s"', "client_limits.idle_timeout", 7.0, 8.0),
    "consistency": Key('"one"', '"all"', "status_with_a_failure", 204, 503),
    "access-log": Key("false", "true", "listener.site._access_log", False, True),
    "queries": Key("true", "false", "listener.config.queries", True, False),
    "queries-when-behind": Key('"serve"', '"refuse"', "listener.readers.settings.when_behind", "serve", "refuse"),
    "query-timeout": Key('"7s"', '"8s"', "listener.readers.settings.timeout", 7.0, 8.0),
    "query-credentials": Key('"client"', '"output"', "listener.readers.settings.own_credentials", False, True),
    "max-queries": Key("7", "8", "listener.readers.settings.limit", 7, 8),
    "max-merge-points": Key("7", "8", "listener.config.max_merge_points", 7, 8),
    "slow-query": Key('"7s"', '"8s"', "listener.readers.settings.slow", 7.0, 8.0),
    "answers": Key(*RULES, "meaning", "retry", "hold"),
    "read-only": Key("false", "true", "listener.readers.settings.read_only", False, True),
    **JOURNAL,
    "output": "OutputTests.test_come_and_go",
    "shard-key": "test_shards.ReloadTests.test_key_and_default",
    "default-shard": "test_shards.ReloadTests.test_key_and_default",
    "shard": "test_shards.EpochTests.test_added_by_a_reload",
    "epoch": "test_shards.EpochTests.test_added_by_a_reload",
}
HTTP_SHARD: dict[str, Key | str] = {
    "name": "test_shards.EpochTests.test_added_by_a_reload",
    "weight": "test_shards.ReloadTests.test_weight",
    "output": "test_shards.ReloadTests.test_outputs",
}
HTTP_EPOCH: dict[str, Key | str] = dict.fromkeys(
    config_keys.HTTP_EPOCH, "test_shards.EpochTests.test_added_by_a_reload"
)
HTTP_OUTPUT: dict[str, Key | str] = {
    "name": "OutputTests.test_renamed_and_swapped",
    "location": "OutputTests.test_moved",
    "endpoints": Key("{}", '{write = "w"}', "path", b"/write", b"/write/w"),
    "timeout": Key('"7s"', '"8s"', "sender.backend.timeout", 7.0, 8.0),
    "skip-tls-verification": "CertificateTests.test_of_backends",
    "ca-file": "CertificateTests.test_of_backends",
    "client-certificate": "CertificateTests.test_of_backends",
    "username": Key('"me"', '"you"', "authorization", b"Basic bWU6cA==", b"Basic eW91OnA=", beside='password = "p"'),
    "password": Key('"p"', '"q"', "authorization", b"Basic bWU6cA==", b"Basic bWU6cQ==", beside='username = "me"'),
    "type": "test_remote_write.TypeTests.test_another_type",
    "api": "OutputTests.test_apis",
    "org": "OutputTests.test_apis",
    "buckets": "OutputTests.test_apis",
    "password-file": "OutputTests.test_secrets_in_files",
    "token": Key('"one"', '"two"', "authorization", b"Token one", b"Token two"),
    "token-file": "OutputTests.test_secrets_in_files",
    "headers": Key('{Authorization = "a"}', '{Authorization = "b"}', "authorization", b"a", b"b"),
    "gzip": Key('"as-received"', "true", "encoding", None, b"gzip"),
    "buffer-size-mb": Key("7", "8", "sender.settings.buffer", 7 * MB, 8 * MB),
    "buffer-full": Key('"reject"', '"drop-oldest"', "sender.settings.drop_oldest", False, True),
    "create-databases": Key("false", "true", "sender.settings.create_databases", False, True),
    "max-batch-kb": Key("7", "8", "sender.settings.max_batch", 7 * 1024, 8 * 1024),
    "max-delay-interval": Key('"7s"', '"8s"', "sender.settings.max_delay", 7.0, 8.0),
    "max-in-flight": Key("1", "2", "sender.settings.max_in_flight", 1, 2),
    "max-connections": Key("7", "8", "output_config.max_connections", 7, 8),
    "max-waiting-mb": Key("7", "8", "sender.settings.max_waiting", 7 * MB, 8 * MB),
    "answers": Key(*RULES, "meaning", "retry", "hold"),
}
ENDPOINTS: dict[str, Key | str] = {
    "write": Key('"a"', '"b"', "path", b"/a", b"/b"),
    "write_prom": Key('"a"', '"b"', "remote_write_path", b"/a", b"/b"),
    "ping": Key('"a"', '"b"', "output_config.ping_url", "a", "b"),
    "query": Key('"a"', '"b"', "status", 204, 204),  # which only stands in files of the Veepee fork
}
UDP: dict[str, Key | str] = {
    "name": "UDPTests.test_renamed",
    "bind-addr": "UDPTests.test_moved",
    "precision": Key('"ns"', '"s"', "datagram_query", b"db=d&precision=ns", b"db=d&precision=s"),
    "read-buffer": Key("9000", "8000", "read_buffer", 9000, 8000),
    "batch-size": Key("7", "8", "batcher._collector._batch_lines", 7, 8),
    "batch-kb": Key("7", "8", "batcher._collector._batch_bytes", 7 * 1024, 8 * 1024),
    "batch-timeout": Key('"7s"', '"8s"', "batcher._collector._interval", 7.0, 8.0),
    "answers": Key(*RULES, "meaning", "retry", "hold"),
    **JOURNAL,
    "output": "UDPTests.test_outputs",
}
UDP_OUTPUT: dict[str, Key | str] = {
    "name": Key('"a"', '"b"', "batcher.name", "a", "b"),
    "location": "UDPTests.test_outputs",
    "mtu": Key("7", "8", "batcher._mtu", 7, 8),
}
TCP: dict[str, Key | str] = {
    "name": "test_tcp.TCPTests.test_renamed",
    "bind-addr": "test_tcp.TCPTests.test_reload",
    "ssl-combined-pem": "test_tcp.TCPTests.test_other_certificate",
    "max-connections": Key("7", "8", "listener.server.max_connections", 7, 8),
    "precision": Key('"ns"', '"s"', "listener.batcher._collector._query", b"db=d&precision=ns", b"db=d&precision=s"),
    "batch-size": Key("7", "8", "listener.batcher._collector._batch_lines", 7, 8),
    "batch-kb": Key("7", "8", "listener.batcher._collector._batch_bytes", 7 * 1024, 8 * 1024),
    "batch-timeout": Key('"7s"', '"8s"', "listener.batcher._collector._interval", 7.0, 8.0),
    "answers": Key(*RULES, "meaning", "retry", "hold"),
    **JOURNAL,
    "output": "test_tcp.TCPTests.test_reload",
}
CONFIG: dict[str, Key | str] = {
    "shutdown-timeout": Key('"7s"', '"8s"', "service.config.shutdown_timeout", 7.0, 8.0),
    "admin-socket": "AdminTests.test_socket",
    "admin": "AdminTests.test_listener",
    "http": "ListenerTests.test_come_and_go",
    "udp": "ListenerTests.test_come_and_go",
    "tcp": "test_tcp.TCPTests.test_reload",
    "filter": "OutputTests.test_filters",
}
ADMIN: dict[str, Key | str] = {"bind-addr": "AdminTests.test_listener"}
FILTER: dict[str, Key | str] = dict.fromkeys(config_keys.FILTER, "OutputTests.test_filters")


class KeyTests(ReloadCase):
    """Each key of each table."""

    one: Any
    two: Any

    def test_every_key(self) -> None:
        """What a reload does with each key is decided, and tested."""
        tables = (
            "CONFIG",
            "ADMIN",
            "FILTER",
            "HTTP",
            "HTTP_SHARD",
            "HTTP_EPOCH",
            "HTTP_OUTPUT",
            "ENDPOINTS",
            "UDP",
            "UDP_OUTPUT",
            "TCP",
        )
        for table in tables:
            decided: dict[str, Key | str] = globals()[table]
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
