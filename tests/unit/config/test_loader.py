"""What each dialect of configuration files means."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from influxrelay.config import loader as config
from influxrelay.config import schema as config_keys
from influxrelay.config.settings import (
    Config,
    HTTPListenerConfig,
    HTTPOutputConfig,
    JournalConfig,
    UDPListenerConfig,
    UDPOutputConfig,
)
from testing.certificates import make_pem
from testing.configuration import BUFFER, HTTP, JOURNAL, OUTPUT, UDP, UDP_OUTPUT, ConfigTestCase, at, bound, udp_at
from testing.servers import PROJECT

CONFIGS = PROJECT / "testing" / "configs"


class DialectTests(ConfigTestCase):
    """Files that run."""

    def test_influxdb_relay(self) -> None:
        """A file of InfluxDB Relay means what it means there."""
        loaded = config.load(CONFIGS / "relay.toml")
        east = "http://east.example.com:8086"
        west = "https://west.example.com/influx"
        self.assertEqual(
            Config(
                path=str(CONFIGS / "relay.toml"),
                http=(
                    HTTPListenerConfig(
                        name="metrics",
                        bind_addr="0.0.0.0:9096",
                        endpoint="tcp:9096:interface=0.0.0.0",
                        default_retention_policy="autogen",
                        outputs=(
                            HTTPOutputConfig(
                                "east", f"{east}/write", f"{east}/write", f"{east}/ping", f"{east}/query", timeout=2.0
                            ),
                            HTTPOutputConfig(
                                "west",
                                f"{west}/write",
                                f"{west}/write",
                                f"{west}/ping",
                                f"{west}/query",
                                max_batch_kb=50,
                                max_delay_interval=90.0,
                                skip_tls_verification=True,
                            ),
                        ),
                    ),
                ),
                udp=(
                    UDPListenerConfig(
                        name="counters",
                        bind_addr=":8089",
                        host="",
                        port=8089,
                        read_buffer=1048576,
                        outputs=(
                            UDPOutputConfig("east", "east.example.com:8089", "east.example.com", 8089, mtu=512),
                            UDPOutputConfig("[::1]:8090", "[::1]:8090", "::1", 8090),
                        ),
                    ),
                ),
            ),
            loaded,
        )

    def test_influxdb_relay_with_buffers(self) -> None:
        """The buffers of InfluxDB Relay mean what they mean there."""
        (listener,) = config.load(CONFIGS / "buffered.toml").http
        self.assertEqual(
            [("near", 10.0, 100, 50, 5.0), ("far", 20.0, 250, 10, 60.0)],
            [(o.name, o.timeout, o.buffer_size_mb, o.max_batch_kb, o.max_delay_interval) for o in listener.outputs],
        )
        self.assertEqual(
            ({"reject"}, None, "one"),
            ({output.buffer_full for output in listener.outputs}, listener.journal, listener.consistency),
        )

    def test_veepee_fork(self) -> None:
        """A file of the Veepee fork means what it means there, and tables may come in any order."""
        loaded = config.load(CONFIGS / "fork.toml")
        first, second = loaded.http
        self.assertEqual(
            (200, 2.5, 1000, 50, r"tcp6:9096:interface=\:\:1", "tcp:9097:interface=127.0.0.1"),
            (
                first.default_ping_response,
                first.health_timeout,
                first.rate_limit,
                first.burst_limit,
                first.endpoint,
                second.endpoint,
            ),
        )
        one, two, three = "http://10.0.0.1:8086", "http://10.0.0.2:8086", "https://10.0.0.3/influx"
        four, five = "http://10.0.0.4:8086", "http://10.0.0.5:8428"
        self.assertEqual(
            [
                ("slash", f"{one}/write", f"{one}/api/v1/prom/write", f"{one}/ping", 0.5),
                ("plain", f"{two}/write", None, f"{two}/kapacitor/v1/ping", 10.0),
                ("root", f"{five}/write", f"{five}/api/v1/write", f"{five}/", 10.0),
                ("prefix", f"{three}/api/v2/write", None, f"{three}/api/v2/ping", 10.0),
                ("bare", f"{four}/write", None, f"{four}/ping", 10.0),
            ],
            [(o.name, o.write_url, o.write_prom_url, o.ping_url, o.timeout) for o in (*first.outputs, *second.outputs)],
        )
        self.assertEqual(512, loaded.udp[0].outputs[0].mtu)  # type: ignore[union-attr]

    def test_host_names(self) -> None:
        """Whatever a resolver may know is a host's name, in URLs and in addresses of datagrams."""
        for host in ("my_influxdb_1", "db--01", "_db-", "db.example.org.", "xn--a", "x" * 64):
            output = self.load(at(f"http://{host}:8086/write")).http[0].outputs[0]
            self.assertEqual(
                (output.write_url, output.ping_url), (f"http://{host}:8086/write", f"http://{host}:8086/ping")
            )
            web = self.load(udp_at(f"https://{host}/write?db=x")).udp[0].outputs[0]
            self.assertEqual(web.write_url, f"https://{host}/write")  # type: ignore[union-attr]
            datagrams = self.load(udp_at(f"{host}:8089")).udp[0].outputs[0]
            self.assertEqual(datagrams.host, host)  # type: ignore[union-attr]
        output = self.load(at("http://[fe80::1%25eth0]:8086/write")).http[0].outputs[0]
        self.assertEqual(output.write_url, "http://[fe80::1%25eth0]:8086/write")
        zone = self.load(udp_at("[fe80::1%eth0]:8089")).udp[0].outputs[0]
        self.assertEqual(zone.host, "fe80::1%eth0")  # type: ignore[union-attr]

    def test_our_own(self) -> None:
        """Our own keys mean what etc/relay.toml says, and UDP outputs may be URLs."""
        loaded = config.load(CONFIGS / "ours.toml")
        http, udp, kept = loaded.http[0], *loaded.udp
        self.assertEqual((2.5, "/run/influxrelay/admin.sock"), (loaded.shutdown_timeout, loaded.admin_socket))
        self.assertEqual(
            JournalConfig("/var/lib/influxrelay/http", 20 * 1024 * 1024, 36 * 3600.0, "drop-oldest", "full", "refuse"),
            http.journal,
        )
        self.assertEqual([True, False], [output.create_databases for output in http.outputs])
        self.assertEqual((None, JournalConfig("/var/lib/influxrelay/udp")), (udp.journal, kept.journal))
        self.assertEqual("unix:/run/influxrelay.sock:mode=660", http.endpoint)
        self.assertEqual(
            (http.endpoint, 0, "one", True), (http.name, http.max_body_size, http.consistency, http.access_log)
        )
        self.assertEqual((0, ("https://grafana.example.org:3000",)), (http.max_decoded_size, http.cors_origins))
        self.assertEqual(
            [("relay", "correct horse", None, True, 2, 64), (None, None, "battery-staple", None, 1, 32)],
            [(o.username, o.password, o.token, o.gzip, o.max_in_flight, o.max_waiting_mb) for o in http.outputs],
        )
        self.assertEqual(
            ("[::]:8089", "::", 8089, "s", 100, 64 * 1024, 0.25),
            (udp.name, udp.host, udp.port, udp.precision, udp.batch_lines, udp.batch_bytes, udp.batch_interval),
        )
        self.assertEqual(
            (
                HTTPOutputConfig(
                    "web",
                    "https://10.0.0.1:8086/write?db=telegraf&rp=two%20weeks",
                    "https://10.0.0.1:8086/write",
                    "https://10.0.0.1:8086/ping",
                    "https://10.0.0.1:8086/query",
                    username="relay",
                    password="correct horse",
                    timeout=3.0,
                    buffer_size_mb=8,
                    buffer_full="drop-oldest",
                    create_databases=True,
                    query="db=telegraf&rp=two%20weeks",
                ),
                UDPOutputConfig("datagrams", "10.0.0.2:8089", "10.0.0.2", 8089),
            ),
            udp.outputs,
        )

    def test_urls(self) -> None:
        """Locations and endpoints are joined with one slash, and a location without endpoints.write may be whole."""
        for location, endpoints, write, prom, ping in (
            ("http://h/write", "", "/write", None, "/ping"),
            ("http://h", "", "/write", None, "/ping"),
            ("http://h/", "", "/write", None, "/ping"),
            ("http://h/influx/", "", "/influx/write", None, "/influx/ping"),
            ("http://h/a/b", "", "/a/b", None, "/a/ping"),
            ("http://h/write", "ping = '/p', write_prom = 'x/y'", "/write", "/x/y", "/p"),
            ("http://h/influx", "write = '/w/', ping = 'p'", "/influx/w/", None, "/influx/p"),
            ("http://h/influx/", "write = 'w/x'", "/influx/w/x", None, "/influx/w/ping"),
            ("http://h", "write = '/w/'", "/w/", None, "/ping"),
            ("http://h", "write_prom = '/x', write = '', query = '/q'", "/write", "/x", "/ping"),
            ("http://h", "write = '/write', write_prom = '/', ping = '/', query = '/'", "/write", "/", "/"),
            ("http://h", "write = '/'", "/", None, "/ping"),
            ("http://h/influx/", "write = '/', ping = '/'", "/influx/", None, "/influx/"),
        ):
            with self.subTest(f"{location} {endpoints}"):
                output = self.output(location, f"endpoints = {{ {endpoints} }}")
                found = (output.write_url, output.write_prom_url, output.ping_url)
                self.assertEqual((f"http://h{write}", prom and f"http://h{prom}", f"http://h{ping}"), found)

    def test_queries_of_prometheus(self) -> None:
        """Queries are beside remote writes, where Mimir has them, or where the endpoint says; else nowhere."""
        for location, endpoints, query in (
            ("http://h/api/v1/write?x=y", "", "http://h/api/v1/query"),
            ("http://h/a/api/v1/write", "", "http://h/a/api/v1/query"),
            ("http://h/api/v1/push", "", "http://h/prometheus/api/v1/query"),
            ("http://h/receive", "query = 'q/query'", "http://h/q/query"),
            ("http://h/receive", "", ""),
        ):
            output = self.output(location, f"type = 'prometheus'\nendpoints = {{ {endpoints} }}")
            self.assertEqual(output.query_url, query, location)

    def test_empty_and_zero_stand_for_the_default(self) -> None:
        """As in both originals an empty string, and a 0 where it makes no sense, say nothing."""
        plain = self.load(HTTP + OUTPUT + UDP + UDP_OUTPUT)
        nothing = "".join(f"{key} = {0 if key.endswith('mb') else repr('')}\n" for key in config_keys.JOURNAL)
        padded = self.load(
            f"admin-socket = ''\n"
            f"{HTTP}{nothing}ssl-combined-pem = ''\ndefault-retention-policy = ''\ndefault-ping-response = 0\n"
            f"health-timeout-ms = 0\nconsistency = ''\n"
            f"{OUTPUT}name = ''\ntimeout = ''\nbuffer-size-mb = 0\nbuffer-full = ''\nmax-batch-kb = 0\n"
            f"max-delay-interval = ''\nca-file = ''\nusername = ''\npassword = ''\ntoken-file = ''\n"
            f"{UDP}{nothing}precision = ''\nbatch-timeout = ''\n{UDP_OUTPUT}mtu = 0\n"
        )
        self.assertEqual(plain, padded)

    def test_journal(self) -> None:
        """A journal's bounds have defaults, an empty directory switches it off, and a buffer may stay beside it."""
        loaded = self.load(f"{HTTP}{JOURNAL}journal-max-mb = 0\n{OUTPUT}{BUFFER}create-databases = true\n")
        self.assertEqual(JournalConfig("d", 1024**3, 604800.0, "reject", "normal", "relay"), loaded.http[0].journal)
        self.assertEqual(
            (1, True), (loaded.http[0].outputs[0].buffer_size_mb, loaded.http[0].outputs[0].create_databases)
        )
        self.assertIsNone(self.load(f"{HTTP}journal = ''\njournal-max-mb = 5\n{OUTPUT}").http[0].journal)

    def test_consistency(self) -> None:
        """Each level is known, in any case, with and without a queue."""
        for level in ("any", "one", "quorum", "all"):
            for written in (level, level.upper()):
                self.assertEqual(level, self.load(f"{HTTP}consistency = '{written}'\n{OUTPUT}").http[0].consistency)

    def test_names_default_to_where_things_are(self) -> None:
        """Without names, listeners and outputs are called as InfluxDB Relay calls them."""
        loaded = self.load(
            bound(":1") + bound(":2", "ssl-combined-pem = 'pem'") + udp_at(":8089").replace('name = "u"', "")
        )
        self.assertEqual(["http://:1", "https://:2"], [each.name for each in loaded.http])
        self.assertEqual(["127.0.0.1:9096"], [each.name for each in loaded.udp])
        self.assertEqual("http://127.0.0.1:8086/write", loaded.http[0].outputs[0].name)
        self.assertEqual(UDPOutputConfig(":8089", ":8089", "127.0.0.1", 8089), loaded.udp[0].outputs[0])

    def test_any_free_port_twice(self) -> None:
        """Two listeners may both ask for any free port, and HTTP and UDP may share a number."""
        loaded = self.load(bound(":0") + bound(":0", "name = 'b'") + UDP + UDP_OUTPUT + HTTP + OUTPUT)
        self.assertEqual((3, 1), (len(loaded.http), len(loaded.udp)))

    def test_byte_order_mark_and_crlf(self) -> None:
        """A file from a Windows editor loads."""
        Path("relay.toml").write_bytes(b"\xef\xbb\xbf" + (HTTP + OUTPUT).replace("\n", "\r\n").encode())
        self.assertEqual("a", config.load("relay.toml").http[0].name)

    def test_values_are_frozen(self) -> None:
        """Nobody changes a loaded configuration."""
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            self.output("http://h/write").timeout = 1.0  # type: ignore[misc]


class EndpointTests(ConfigTestCase):
    """From bind-addr to Twisted's endpoint strings."""

    def endpoint(self, address: str, pem: str = "") -> str:
        """Return the endpoint of an HTTP listener."""
        return self.load(f"[[http]]\nbind-addr = '{address}'\nssl-combined-pem = '{pem}'\n{OUTPUT}").http[0].endpoint

    def test_strings(self) -> None:
        """Addresses become endpoint strings, and endpoint strings stay what they are."""
        for address, endpoint in (
            ("127.0.0.1:9096", "tcp:9096:interface=127.0.0.1"),
            ("localhost:9096", "tcp:9096:interface=127.0.0.1"),
            (":9096", "tcp:9096"),
            (":0", "tcp:0"),
            ("[::]:9096", r"tcp6:9096:interface=\:\:"),
            ("[0:0::1]:9096", r"tcp6:9096:interface=\:\:1"),
            ("tcp:9096", "tcp:9096"),
            ("unix:/run/relay.sock", "unix:/run/relay.sock"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
        ):
            with self.subTest(address):
                self.assertEqual(endpoint, self.endpoint(address))

    def test_pem(self) -> None:
        """A PEM file becomes part of the endpoint, whatever its path, encoding and line ends, as do IPv6 addresses."""
        os.mkdir("a:b\\c")  # noqa: PTH102 (Path would hide what the name is)
        Path("a:b\\c/=x.pem").write_bytes(make_pem("leaf", "authority"))
        comment = "# größer\r\n".encode("latin-1")
        Path("one.pem").write_bytes(comment + make_pem("leaf").replace(b"\n", b"  \r\n"))
        self.assertEqual(
            r"ssl:9096:interface=\:\:1:privateKey=a\:b\\c/=x.pem", self.endpoint("[::1]:9096", "a:b\\c/=x.pem")
        )
        self.assertEqual("ssl:9096:privateKey=one.pem", self.endpoint(":9096", "one.pem"))
