"""Two of everything behind load balancers, until Ctrl-C: watch it in a table, and kill or freeze its parts.

Two sites that write, HAProxy, nginx, two relays with journals, two InfluxDB servers, a dashboard that queries, and
Prometheus.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NoReturn
from urllib.parse import urlencode

from testing.monitoring import Prometheus
from testing.picture import RELAYS, SERVERS, Picture
from testing.servers import LOOPBACK, ServerError
from testing.shard_picture import ShardPicture
from testing.sites import DATABASE, Sites
from tools.picture_parts import Parts, Rate
from tools.picture_shards import ShardWatch
from tools.picture_table import Facts, SenderFacts, find_trouble, fit, keys, table
from tools.screen import LOOK, show

RATE = 40.0  # writes a second, half of them over UDP
JUST_NOW = 5.0  # seconds
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # a script may have set the first to be ignored


class Watch:
    """Runs the picture, carries out keys, and collects the state of all parts."""

    def __init__(self, picture: Picture, sites: Sites, prometheus: Prometheus) -> None:
        self.picture, self.sites, self.prometheus = picture, sites, prometheus
        self.over = threading.Event()
        self.parts = Parts(picture.parts, tuple(picture.parts))
        self._votes: dict[tuple[str, str], tuple[int, str]] = {}
        self._states: dict[str, str] = {}
        self._alerts: list[str] = []
        self._answers: Counter[str] = Counter()
        self._rates: dict[str, Rate] = {}

    def begin(self) -> None:
        """Collect and work in threads until :attr:`over` is set."""
        for relay in RELAYS:
            for server in SERVERS:
                self._repeat(LOOK, self._ask_vote, relay, server)
        self._repeat(LOOK, self._ask_haproxy)
        self._repeat(2.0, self._ask_prometheus)
        self._repeat(0.25, self._query)
        self._repeat(0.0, self.parts.act)

    def _repeat(self, pause: float, function: Callable[..., None], *arguments: Any) -> None:
        def run() -> None:
            while not self.over.wait(pause):
                function(*arguments)

        threading.Thread(target=run, daemon=True).start()

    def _ask_vote(self, relay: str, server: str) -> None:
        status, told = self.picture.health(relay, f"/health/backends/{server}")
        self._votes[relay, server] = status, str(told.get("message", ""))

    def _ask_haproxy(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # no answer, so nothing new
            self._states = self.picture.haproxy.states()

    def _ask_prometheus(self) -> None:
        with contextlib.suppress(OSError, AssertionError, ServerError, ValueError):
            told = self.prometheus.ask("alerts")["alerts"]
            self._alerts = sorted({each["labels"]["alertname"] for each in told if each["state"] == "firing"})

    def _query(self) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self.picture.haproxy.port, timeout=10)
        parameters = urlencode({"db": DATABASE, "q": "SELECT last(n) FROM http GROUP BY sender"})
        try:
            connection.request("GET", f"/query?{parameters}")
            answer = connection.getresponse()
            answer.read()
            who = answer.getheader("X-Served-By", "") if answer.status == 200 else str(answer.status)
            self._answers[who if who in (*SERVERS, "503") else "broken"] += 1
        except (OSError, http.client.HTTPException):
            self._answers["broken"] += 1
        finally:
            connection.close()

    # -- what is shown

    def press(self, key: str) -> None:
        """Carry out a key."""
        self.parts.press(key)

    def fitted(self, width: int, height: int) -> list[str]:
        """Return the lines for a terminal of this size."""
        return fit([keys(len(self.parts.states)), *table(self.facts())], width, height)

    def told(self) -> tuple[list[str], list[str]]:
        """Return all lines, and what is wrong."""
        facts = self.facts()
        return table(facts), find_trouble(facts)

    # -- facts

    def _rate(self, name: str, number: int) -> float:
        return self._rates.setdefault(name, Rate()).of(number)

    def facts(self) -> Facts:
        """Return the state of all parts."""
        self.parts.look()
        senders = []
        for sender in self.sites.http:
            written = len(sender.acknowledged)
            last = max(sender.acknowledged, default=0)
            senders.append(
                SenderFacts(
                    sender.source.name,
                    sender.source.through,
                    written,
                    self._rate(sender.source.name, written),
                    len(sender.failed),
                    sender.repeated,
                    time.monotonic() - sender.began if sender.began else 0.0,
                    sender.acknowledged[last][1] if last else "-",
                    failing=bool(sender.failed) and sender.failed[-1][0] > time.monotonic() - JUST_NOW,
                )
            )
        datagrams = sum(sender.sent for sender in self.sites.udp)
        return Facts(
            clock=time.strftime("%H:%M:%S"),
            parts=dict(self.parts.states),
            votes=dict(self._votes),
            states=dict(self._states),
            senders=senders,
            answers={who: self._rate(f"query {who}", count) for who, count in list(self._answers.items())},
            datagrams=self._rate("udp", datagrams),
            alerts=self._alerts,
            events=list(self.parts.events),
            chosen=self.parts.chosen,
            addresses=f"InfluxDB for clients: {self.picture.haproxy.url}   HAProxy's page: http://{LOOPBACK}:"
            f"{self.picture.haproxy.stats_port}/   Prometheus: {self.prometheus.url}",
        )


def make_directory(stack: ExitStack) -> str:
    """Make a directory for all parts."""
    directory = tempfile.mkdtemp(prefix="picture-")
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    print(f"starting all parts in {directory} ...", flush=True)
    return directory


def run_shards(stack: ExitStack, seconds: float) -> None:
    """Start shards in both ways, and show them."""
    picture = stack.enter_context(ShardPicture(make_directory(stack)))
    watch = ShardWatch(picture)
    stack.callback(watch.stop)
    watch.begin()
    show(watch, seconds)


def run(stack: ExitStack, seconds: float, *, shared: bool) -> None:
    """Start everything and show it."""
    directory = make_directory(stack)
    picture = stack.enter_context(Picture(directory, shared=shared))
    admin = [f"{LOOPBACK}:{port}" for port in picture.admin.values()]
    servers = [f"{LOOPBACK}:{server.http_port}" for server in picture.servers.values()]
    prometheus = stack.enter_context(Prometheus(f"{directory}/prometheus", admin, servers, interval="5s"))
    ports = {"haproxy": picture.haproxy.port, "nginx": picture.nginx.port}
    sites = stack.enter_context(Sites(ports, picture.nginx.udp_port, RATE))
    for sender in sites.http:
        sender.names = picture.places
    watch = Watch(picture, sites, prometheus)
    stack.callback(watch.over.set)
    watch.begin()
    show(watch, seconds)


def stop(*_: object) -> NoReturn:
    """Exit as on Ctrl-C."""
    raise KeyboardInterrupt


def main() -> None:
    """Run until Ctrl-C or a signal."""
    parser = argparse.ArgumentParser(prog="make picture", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this many seconds")
    parser.add_argument(
        "--shards", action="store_true", help="two shards instead: behind one relay, and behind one before relays"
    )
    parser.add_argument("--shared", action="store_true", help="with one journal for both relays, on three NATS servers")
    options = parser.parse_args()
    for number in SIGNALS:
        signal.signal(number, stop)
    with ExitStack() as stack:
        try:
            if options.shards:
                run_shards(stack, options.seconds)
            else:
                run(stack, options.seconds, shared=options.shared)
        except KeyboardInterrupt:
            print("stopping all parts ...", flush=True)
        except (ServerError, OSError) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
