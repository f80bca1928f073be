"""What the engine makes of servers and streams."""

from __future__ import annotations

import re
import shutil
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from influxrelay.core.errors import JournalError
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared import provision
from influxrelay.journal.shared.frames import number_of
from influxrelay.journal.shared.interface import GAP, Unfit
from influxrelay.journal.shared.state import BackendState
from testing.certificates import Authority
from testing.logs import watch_log
from testing.nats import ACCOUNTS, DebianNatsServer, NatsCluster, NatsServer
from testing.nats_case import EngineCase
from testing.nkeys import USER, NKey, Operator
from testing.scripted import until
from testing.servers import LOOPBACK, PROJECT, free_port

UNSAFE = "the loss of a server or of power may cost acknowledged writes"


class CheckCase(EngineCase):
    """Connects to servers of all kinds."""

    async def started(self, server: NatsServer | NatsCluster) -> str:
        """Start servers that end with the test, and return their addresses."""
        self.addCleanup(server.stop)
        await deferToThread(server.start)
        return server.addresses

    async def line(self, addresses: str, **more: Any) -> str:
        """Return the line that refuses to use a server."""
        try:
            await self.engine(addresses, **more).connect()
        except Unfit as error:
            return str(error)
        raise AssertionError("it was not refused")


class PromiseTests(CheckCase):
    """What is promised, refused, and said."""

    async def test_all_is_well(self) -> None:
        """Three servers that sync always: nothing is to be said, even while one of them is down."""
        logged = watch_log(self)
        cluster = NatsCluster(self.directory)
        addresses = await self.started(cluster)
        await self.connected(addresses, full_sync=True)
        self.assertEqual(logged, [])
        cluster.servers[2].kill()
        await self.connected(addresses, full_sync=True)
        (line,) = logged
        self.assertIn("n3 could not be checked; make sure that it is configured as the others are", line)

    async def test_no_sync(self) -> None:
        """Servers that sync now and then are named: in a warning, or where ``full`` refuses them."""
        addresses = await self.started(NatsCluster(self.directory, sync="2m"))
        logged = watch_log(self)
        await self.connected(addresses)
        what = "; ".join(f"n{number} has no sync_interval: always" for number in (1, 2, 3))
        self.assertEqual(logged, [f"nats://{addresses}/relay: {UNSAFE}: {what}"])
        line = await self.line(addresses, full_sync=True)
        self.assertEqual(line, f'nats://{addresses}/relay: refused, since journal-sync is "full": {what}')

    async def test_nobody_says(self) -> None:
        """An account that may not ask how servers are configured cannot know."""
        settings = re.sub(r"(?m)^ *imports.*$", "", ACCOUNTS)
        addresses = await self.started(NatsCluster(self.directory, settings=settings))
        line = await self.line(addresses, full_sync=True)
        self.assertIn("the servers do not say whether they have sync_interval: always", line)

    async def test_one_server(self) -> None:
        """One server has one replica, which works and promises little."""
        addresses = await self.started(NatsServer(self.directory))
        logged = watch_log(self)
        engine = await self.connected(addresses)
        self.assertEqual(await engine.log.publish("relay.log", b"a", msg_id="1"), 1)
        what = "the stream relay has 1 replica instead of 3"
        self.assertEqual(logged, [f"nats://{addresses}/relay: {UNSAFE}: {what}"])
        self.assertIn(what, await self.line(addresses, full_sync=True))

    async def test_debian(self) -> None:
        """Debian's server is too old: it works, but for what it cannot promise."""
        addresses = await self.started(DebianNatsServer(self.directory))
        logged = watch_log(self)
        engine = await self.connected(addresses)
        self.assertEqual(await engine.log.publish("relay.log", b"a", msg_id="1"), 1)
        (line,) = logged
        self.assertIn("n1 has version 2.9.10, older than 2.12.3; n1 has no sync_interval: always", line)
        self.assertIn("n1 has version 2.9.10, older than 2.12.3", await self.line(addresses, full_sync=True))

    async def test_shipped_files(self) -> None:
        """The configurations in ``etc/nats`` promise everything, and let nobody in who has no password."""
        shutil.copytree(PROJECT / "etc" / "nats", self.directory)
        cluster = NatsCluster(self.directory)
        routes = {f"nats{number}:6222": f"{LOOPBACK}:{free_port()}" for number in (1, 2, 3)}
        for number, server in enumerate(cluster.servers, 1):
            text = (self.directory / f"nats{number}.conf").read_text()
            changes = {
                "0.0.0.0:4222": f"{LOOPBACK}:{server.port}",
                "127.0.0.1:8222": f"{LOOPBACK}:{server.monitor}",
                "0.0.0.0:6222": routes[f"nats{number}:6222"],
                "/var/lib/nats": str(server.directory / "store"),
                **routes,
            }
            for shipped, ours in changes.items():
                self.assertIn(shipped, text)
                text = text.replace(shipped, ours)
            server.file = self.directory / f"ours{number}.conf"
            server.file.write_text(text)
            server.variables = {"INFLUXRELAY_NATS_PASSWORD": "p4ss", "INFLUXRELAY_NATS_ADMIN_PASSWORD": "adm1n"}
        addresses = await self.started(cluster)
        credentials = self.directory / "credentials"
        credentials.write_text("relay:p4ss\n")
        logged = watch_log(self)
        await self.connected(addresses, full_sync=True, credentials_file=str(credentials))
        self.assertEqual(logged, [])
        self.assertIn("Authorization Violation", await self.line(addresses, timeout=2.0))


def engine_has(engine: Any, risk: str) -> bool:
    """Tell whether an engine tells of this risk."""
    return bool(engine.risk == risk)


class LaterTests(CheckCase):
    """What happens to servers and streams while a relay runs."""

    async def call(self, engine: Any, what: str, **body: Any) -> Any:
        """Ask JetStream's API."""
        return await Deferred.fromFuture(engine._connection.spawn(engine._api.call(what, body or None)))

    async def test_changes(self) -> None:
        """A server that comes back with other settings is noticed, and so are replicas that are reduced."""
        self.patch(provision, "LOOK", 0.5)
        cluster = NatsCluster(self.directory)
        addresses = await self.started(cluster)
        logged = watch_log(self)
        engine = await self.connected(addresses)
        self.assertEqual(engine.risk, "")
        server = cluster.servers[1]
        for sync, risk in (("2m", "n2 has no sync_interval: always"), ("always", "")):
            server.kill()
            server.sync = sync
            await deferToThread(server.start)
            await until(partial(engine_has, engine, risk), risk or "all is well")
        config = (await self.call(engine, "STREAM.INFO.relay"))["config"]
        await self.call(engine, "STREAM.UPDATE.relay", **{**config, "num_replicas": 1})
        risk = "the stream relay has 1 replica instead of 3"
        await until(partial(engine_has, engine, risk), risk)
        self.assertEqual(
            [each for each in logged if "could not be checked" not in each],
            [
                f"nats://{addresses}/relay: {UNSAFE}: n2 has no sync_interval: always",
                f"nats://{addresses}/relay: the servers are as they should be again",
                f"nats://{addresses}/relay: {UNSAFE}: {risk}",
            ],
        )

    async def test_removed(self) -> None:
        """Streams that somebody removes are made anew, the log behind all that was known of it."""
        self.patch(provision, "LOOK", 0.5)
        addresses = await self.started(NatsServer(self.directory))
        logged = watch_log(self)
        engine = await self.connected(addresses)
        for number in range(3):
            await engine.log.publish("relay.log", b"a", msg_id=f"{number}")
        await engine.bucket.create("backend.a", BackendState("a", cursor=number_of(7, 0)).encode())
        await engine.log.state()
        await self.call(engine, "STREAM.DELETE.relay")
        await until(lambda: any("removed the stream relay," in each for each in logged), "it is made anew")
        self.assertEqual(await engine.log.publish("relay.log", b"a", msg_id="4"), 7 + GAP + 1)
        await self.call(engine, "STREAM.DELETE.KV_relay-state")
        await until(lambda: any("removed the stream KV_relay-state," in each for each in logged), "it is made anew")
        await self.call(engine, "STREAM.DELETE.relay")
        await until(lambda: len([each for each in logged if "removed the stream relay," in each]) > 1, "anew")
        state = await engine.log.state()
        self.assertGreater(state.first_seq, 7 + GAP + 1)

    async def test_small_messages(self) -> None:
        """Servers that take only small messages cannot be used."""
        addresses = await self.started(NatsServer(self.directory, settings=f"{ACCOUNTS}\nmax_payload: 65536"))
        self.assertIn("max_payload is 65536; it must be at least 655360", await self.line(addresses))


class ConnectionTests(CheckCase):
    """What the relay shows, and what the servers show."""

    async def test_credentials(self) -> None:
        """A password, an NKey; what is wrong is told without a secret."""
        key = NKey(USER)
        seed = key.seed
        settings = f"authorization {{ users: [{{user: u, password: hunter2}}, {{nkey: {key.public}}}] }}"
        addresses = await self.started(NatsServer(self.directory, settings=settings))
        for content, wrong in (
            ("u:hunter2\n", ""),
            (f"-----BEGIN USER NKEY SEED-----\n{seed}\n", ""),
            ("u:hunter3", "Authorization Violation"),
            ("hunter3", "neither NATS credentials nor the seed of a user's NKey nor USER:PASSWORD"),
            (f"SU{seed[2:][::-1]}", "the seed of the NKey has a wrong checksum"),
        ):
            file = self.directory / "credentials"
            file.write_text(content)
            if not wrong:
                await self.connected(addresses, credentials_file=str(file))
                continue
            line = await self.line(addresses, credentials_file=str(file), timeout=1.0)
            self.assertIn(wrong, line)
            self.assertNotIn("hunter", line)
            self.assertNotIn(seed[8:], line)
        self.assertIn("Authorization", await self.line(addresses, timeout=1.0))

    async def test_operator(self) -> None:
        """Credentials that an operator has issued."""
        operator = Operator()
        addresses = await self.started(NatsServer(self.directory, settings=operator.settings))
        file = self.directory / "relay.creds"
        file.write_text(operator.credentials)
        engine = await self.connected(addresses, credentials_file=str(file))
        self.assertEqual(await engine.log.publish("relay.log", b"a", msg_id="1"), 1)
        file.write_text(Operator().credentials)
        self.assertIn("Authorization", await self.line(addresses, credentials_file=str(file), timeout=1.0))

    async def test_tls(self) -> None:
        """The server's certificate is checked; a server without TLS gets no password."""
        authority, other = Authority(f"{self.directory}/ca"), Authority(f"{self.directory}/other")
        pem = authority.issue()
        users = "authorization { users: [{user: u, password: hunter2}] }"
        settings = f'{users}\ntls {{ cert_file: "{pem}", key_file: "{pem}" }}'
        credentials = self.directory / "credentials"
        credentials.write_text("u:hunter2")
        shown: dict[str, Any] = {"credentials_file": str(credentials), "tls": True, "timeout": 3.0}
        secure = await self.started(NatsServer(self.directory / "secure", settings=settings))
        await self.connected(secure, ca_file=authority.ca_file(), **shown)
        with self.assertRaises(JournalError) as raised:
            await self.engine(secure, ca_file=other.ca_file(), **shown).connect()
        self.assertIn("certificate verify failed", str(raised.exception))
        clear = await self.started(NatsServer(self.directory / "clear", settings=users))
        self.assertIn("does not ask for TLS", await self.line(clear, ca_file=authority.ca_file(), **shown))

    async def test_nobody_there(self) -> None:
        """Servers that cannot be reached are no reason to give up."""
        engine = self.engine(f"{LOOPBACK}:{free_port()}", timeout=1.0)
        for _ in range(2):
            with self.assertRaises(JournalError) as raised:
                await engine.connect()
            self.assertNotIsInstance(raised.exception, Unfit)
        self.assertIn("refused", str(raised.exception))
        self.assertIn("refused", engine.trouble)


class StreamTests(CheckCase):
    """Streams that are there already."""

    async def test_other_limits(self) -> None:
        """The limits that are configured hold from the next start on, and it is said that they have changed."""
        addresses = await self.started(NatsServer(self.directory))
        await self.connected(addresses)
        logged = watch_log(self)
        self.limits = JournalLimits(20_000_000, 3600.0, drop_oldest=True)
        engine = await self.connected(addresses)
        changes = [line for line in logged if "changing max_bytes, max_age, discard of the stream relay to" in line]
        self.assertEqual(len(changes), 1, logged)
        await engine.reconfigure(JournalLimits(10_000_000, 60.0))
        config = (await engine._connection.run(engine._api.call("STREAM.INFO.relay")))["config"]
        self.assertEqual((config["max_bytes"], config["discard"]), (10_000_000, "new"))

    async def test_another_shape(self) -> None:
        """A stream that is something else is not touched."""
        addresses = await self.started(NatsServer(self.directory))
        other = self.engine(addresses)
        other._connection.open()
        await other._connection.run(other._api.call("STREAM.CREATE.relay", {"name": "relay", "subjects": ["x.>"]}))
        line = await self.line(addresses)
        self.assertIn("the stream relay is there, but not as a journal needs it; remove it", line)

    async def test_too_large(self) -> None:
        """Servers that have no room for what is configured say so."""
        addresses = await self.started(NatsServer(self.directory))
        self.limits = JournalLimits(200 * 10**9)
        self.assertIn("the stream relay cannot be made: insufficient storage", await self.line(addresses))
