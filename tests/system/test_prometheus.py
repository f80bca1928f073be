"""Debian's Prometheus before two real relays and two real servers: failures are made, and alerts fire."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree
from socket import SOCK_DGRAM, socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.operations.metric_families import FAMILIES
from testing.monitoring import Prometheus
from testing.servers import LOOPBACK, PROJECT, Influxd, Relay, find_program, free_port, send

ETC = PROJECT / "etc"
DASHBOARD = ETC / "grafana-dashboard.json"
LIMIT = 60  # seconds that anything may take
CONFIG = """\
admin-socket = "{socket}"

[admin]
bind-addr = "{admin}"

[[http]]
name = "web"
bind-addr = "{web}"
journal = "{directory}/journal"
journal-max-mb = 1
output = [
    {{ name = "a", location = "{a}/write", max-delay-interval = "500ms" }},
    {{ name = "b", location = "{b}/write", max-delay-interval = "500ms" }},
]

[[http]]
name = "buffered"
bind-addr = "{buffered}"
output = [
    {{ name = "a", location = "{a}/write", buffer-size-mb = 1, max-delay-interval = "500ms" }},
    {{ name = "b", location = "{b}/write", buffer-size-mb = 1, max-delay-interval = "500ms" }},
]

[[udp]]
name = "udp"
bind-addr = "{udp}"
batch-timeout = "100ms"
output = [
    {{ name = "a", location = "{a}/write?db=db" }},
    {{ name = "datagrams", location = "{sink}", mtu = 100 }},
]
"""
WAITS = {"1m": "3s", "2m": "3s"}

Alert = tuple[str, ...]
"""A name, and then the values of relay, listener, backend and reason, so many as there are."""


def promtool(*arguments: str | Path, given: str = "") -> str:
    """Run promtool to its end; return what it says if it finds fault, else nothing."""
    command = [find_program("promtool", "prometheus"), *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels, without the rows' titles."""
    found = json.loads(DASHBOARD.read_text())["panels"]
    return [each for each in found if each["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    """Return all expressions of rules and dashboard, each with the name of its place."""
    rules = re.findall(
        r"- alert: (\w+)\n\s+expr:(.*?)\n\s+(?:for|labels):", (ETC / "alerts.yml").read_text(), re.DOTALL
    )
    drawn = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    return [*rules, *drawn]


class FileTests(SynchronousTestCase):
    """The files of ``etc``."""

    def test_prometheus_reads_them(self) -> None:
        """Prometheus finds nothing wrong with its configuration and the rules."""
        self.assertEqual(promtool("check", "config", ETC / "prometheus.yml"), "")
        self.assertEqual(promtool("check", "rules", ETC / "alerts.yml"), "")

    def test_stories(self) -> None:
        """Each alert fires in its story and in no other."""
        stories = PROJECT / "tests" / "system" / "alerts_test.yml"
        self.assertEqual(promtool("test", "rules", stories), "")
        alerts = set(re.findall(r"- alert: (\w+)", (ETC / "alerts.yml").read_text()))
        self.assertEqual(set(re.findall(r"alertname=\"(\w+)\"", stories.read_text())), alerts)

    def test_alerts_tell_what_to_do(self) -> None:
        """Each alert has a severity, a summary and a description."""
        rules = (ETC / "alerts.yml").read_text().split("- alert: ")[1:]
        for rule in rules:
            for part in ("severity: (?:critical|warning)\n", 'summary: ".+"\n', r"description: >-\n\s+\S.{40}"):
                self.assertRegex(rule, part)

    def test_names(self) -> None:
        """Rules and dashboard ask for metrics that there are, by labels that these have."""
        labels = {each.name: each.labels for each in FAMILIES}
        for place, expression in expressions():
            for name, selectors in re.findall(r"\b(influxrelay_\w+)(?:\{([^}]*)\})?", expression):
                base = re.sub("_(bucket|sum|count)$", "", name) if name not in labels else name
                self.assertIn(base, labels, place)
                asked = set(re.findall(r'(\w+)(?:=|!=|=~|!~)"', selectors)) - {"instance", "job"}
                self.assertLessEqual(asked, set(labels[base]), f"{place}: {name}")

    def test_panels(self) -> None:
        """Each panel has a title of its own, a description, a unit, and the data source that is chosen above."""
        found = panels()
        self.assertEqual(len({each["title"] for each in found}), len(found))
        for panel in found:
            self.assertGreater(len(panel["description"]), 15, panel["title"])
            self.assertIn("unit", panel["fieldConfig"]["defaults"], panel["title"])
            self.assertNotRegex(panel["title"], "influxrelay_|_total|_seconds")
            sources = [panel["datasource"], *(each["datasource"] for each in panel["targets"])]
            self.assertEqual({each["uid"] for each in sources}, {"${datasource}"}, panel["title"])
        places = [(each["gridPos"]["x"], each["gridPos"]["y"]) for each in found]
        self.assertEqual(len(set(places)), len(places), "panels that lie on each other")


class _Site:
    """A relay, and who writes to it all the time."""

    def __init__(self, directory: Path, a: Influxd, b: Influxd, *, sink: str) -> None:
        self.web, self.buffered, self.admin = (f"{LOOPBACK}:{free_port()}" for _ in range(3))
        self.udp = (LOOPBACK, free_port("udp"))
        directory.mkdir(parents=True)
        self.sockets = tempfile.mkdtemp(prefix="influxrelay-")  # a unix socket's path must be short
        text = CONFIG.format(
            socket=f"{self.sockets}/admin.sock",
            admin=self.admin,
            web=self.web,
            buffered=self.buffered,
            udp=f"{LOOPBACK}:{self.udp[1]}",
            a=a.url,
            b=b.url,
            sink=sink,
            directory=directory.absolute(),
        )
        self.relay = Relay(directory, text, int(self.web.rpartition(":")[2]))

    def write(self, listener: str, body: str) -> int:
        """Write, and return the status."""
        address = self.web if listener == "web" else self.buffered
        return send("POST", f"http://{address}/write?db=db", body.encode(), timeout=30)[0]

    def write_much(self, listener: str, size: int) -> None:
        """Write so many bytes, of one point."""
        line = "much v=1 1\n"
        status = self.write(listener, line * (size // len(line)))
        if status != 204:
            raise AssertionError(f"a large write was answered {status}")

    def send(self, line: str) -> None:
        """Send a datagram."""
        with socket(type=SOCK_DGRAM) as sender:
            sender.sendto(line.encode(), self.udp)

    def run(self, *command: str) -> None:
        """Run the operator's command line."""
        done = subprocess.run(
            [Path(sysconfig.get_path("scripts")) / "influxrelay", *command, "--config", self.relay.config],
            capture_output=True,
            text=True,
            check=False,
            cwd=PROJECT,
        )
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)


class AlertTests(SynchronousTestCase):
    """What fires."""

    def setUp(self) -> None:
        """Start everything, and writers that never stop."""
        directory = Path(self.mktemp()).absolute()
        self.servers = Influxd(directory / "a"), Influxd(directory / "b")
        self.sink = socket(type=SOCK_DGRAM)
        self.addCleanup(self.sink.close)
        self.sink.bind((LOOPBACK, 0))
        sink = f"{LOOPBACK}:{self.sink.getsockname()[1]}"
        self.sites = [_Site(directory / name, *self.servers, sink=sink) for name in ("r1", "r2")]
        self.prometheus = Prometheus(
            directory / "prometheus",
            [site.admin for site in self.sites],
            [server.url.removeprefix("http://") for server in self.servers],
            interval="750ms",
            waits=WAITS,
        )
        for site in self.sites:
            self.addCleanup(rmtree, site.sockets)
        relays = [site.relay for site in self.sites]
        for server in (*self.servers, *relays, self.prometheus):
            self.addCleanup(server.kill)
        with ThreadPoolExecutor() as pool:
            list(pool.map(Influxd.start, self.servers))
            for server in self.servers:
                server.create_database("db")
            list(pool.map(lambda server: server.start(), [*relays, self.prometheus]))
        self._ended = threading.Event()
        writers = [threading.Thread(target=self._keep_writing, args=(site,)) for site in self.sites]
        for writer in writers:
            writer.start()
            self.addCleanup(writer.join)
        self.addCleanup(self._ended.set)
        self.all: set[Alert] = set()

    def _keep_writing(self, site: _Site) -> None:
        """Write a point to each listener, again and again, whatever becomes of it."""
        number = 0
        while not self._ended.wait(0.4):  # each counts for hundreds of bytes in a buffer, which must not fill up
            number += 1
            for listener in ("web", "buffered"):
                with contextlib.suppress(OSError):
                    site.write(listener, f"m v={number} {number}")
            site.send(f"m v={number} {number}")

    def fires(self, what: str, expected: set[Alert]) -> None:
        """Wait until exactly these alerts fire."""
        self.all |= expected
        deadline = time.monotonic() + LIMIT
        while (found := self._firing()) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        self.assertEqual(sorted(found), sorted(expected), what)

    def _firing(self) -> set[Alert]:
        for alert in self.prometheus.firing():
            self.assertNotIn("<no value>", str(alert["annotations"]))
        return {self._show(each["labels"]) for each in self.prometheus.firing()}

    def _show(self, labels: dict[str, str]) -> Alert:
        names = {site.admin: f"r{number}" for number, site in enumerate(self.sites, 1)}
        parts = (names[labels["instance"]], *(labels.get(key, "") for key in ("listener", "backend", "reason")))
        return (labels["alertname"], *(part for part in parts if part))

    def wait(self, what: str, is_there: Callable[[], Any]) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + LIMIT
        while not is_there():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.1)

    def test_failures(self) -> None:
        """After each failure its alerts fire, and no others; when it is mended they end; the dashboard shows it all."""
        (a, b), (r1, r2) = self.servers, self.sites
        self.wait(
            "two scrapes", lambda: len(self.prometheus.query("count_over_time(influxrelay_healthy[1m]) > 2")) == 6
        )
        self.fires("all is well", set())
        for site in self.sites:
            _, body = send("GET", f"http://{site.admin}/metrics")
            self.assertEqual(promtool("check", "metrics", given=body.decode()), "")

        b.kill()
        down: set[Alert] = {
            ("InfluxRelayBackendDown", each, name, "b") for each in ("r1", "r2") for name in ("web", "buffered")
        }
        self.fires("a server is killed", down)
        r1.write_much("web", 870_000)
        r1.write_much("buffered", 870_000)
        for _ in range(2):
            r2.write_much("buffered", 900_000)
        dropped: set[Alert] = {("InfluxRelayWritesDropped", "r2", "buffered", "b", "full")}
        full: set[Alert] = {
            ("InfluxRelayJournalNearlyFull", "r1", "web"),
            ("InfluxRelayBufferNearlyFull", "r1", "buffered", "b"),
            ("InfluxRelayBufferNearlyFull", "r2", "buffered", "b"),
        }
        self.fires("queues fill", down | dropped | full)
        b.start()
        self.fires("the server is back; what was dropped stays so", dropped)

        self.assertEqual(b.write("conflict v=1i 1", "db"), 204)
        b.pause()
        status = r1.write("web", "conflict v=1.5 2")
        b.resume()
        self.assertEqual(status, 204)
        self.fires("a dead letter", dropped | {("InfluxRelayDeadLetters", "r1", "web", "b")})
        r1.run("dead-letters", "drop", "--all")
        self.fires("it is dropped", dropped)

        r1.send("nonsense")
        r1.send(f'm s="{"x" * 100}" 1')
        lost: set[Alert] = {
            ("InfluxRelayUDPInvalid", "r1", "udp", "invalid"),
            ("InfluxRelayUDPUnsent", "r1", "udp", "datagrams", "mtu"),
        }
        self.fires("UDP lines are lost", dropped | lost)

        self.limit_files(r2, 1)
        self.fires("a full disk", dropped | lost | {("InfluxRelayJournalFailing", "r2", "web")})
        self.limit_files(r2, resource.RLIM_INFINITY)
        self.fires("it has room again", dropped | lost)
        self.check_dashboard()

        for server in (r2.relay, a, b):
            server.kill()
        listeners = ("web", "buffered", "udp")
        outage = {
            ("InfluxRelayDown", "r2"),
            *(("InfluxRelayBackendDown", "r1", name, "a") for name in listeners),
            *(("InfluxRelayBackendDown", "r1", name, "b") for name in ("web", "buffered")),
            *(("InfluxRelayUnhealthy", "r1", name) for name in ("web", "buffered")),
            *(("InfluxRelayServerErrors", "r1", name) for name in ("web", "buffered")),
            ("InfluxRelayWritesMissed", "r1", "udp", "a"),
            ("InfluxRelayUDPUnsent", "r1", "udp", "a", "503"),
        }
        self.fires("only one relay is left, and nobody tells what the other one has lost", lost | outage)
        ever = self.prometheus.query('max_over_time(ALERTS{alertstate="firing"}[30m])')
        self.assertEqual(sorted({self._show(each["metric"]) for each in ever}), sorted(self.all), "an alert too many")

    def limit_files(self, site: _Site, size: int) -> None:
        """Fill the disk for a relay: none of its files can grow beyond this size."""
        _, hard = resource.prlimit(site.relay.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(site.relay.pid, resource.RLIMIT_FSIZE, (size, hard))

    def check_dashboard(self) -> None:
        """Each expression of the dashboard gives figures, or its panel says when it is empty."""
        for panel in panels():
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "30s")
                expression = re.sub(r"\$(instance|listener|backend)", ".*", expression)
                found = self.prometheus.query(expression)
                self.assertTrue(found or "Empty" in panel["description"], f"{panel['title']}: {expression}")
