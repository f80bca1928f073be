"""Two of everything behind load balancers, until Ctrl-C: watch it in a table, and kill or freeze its parts.

Two sites that write, HAProxy, nginx, two relays with journals, two InfluxDB servers, a dashboard that queries, and
Prometheus.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import queue
import select
import shutil
import signal
import sys
import tempfile
import termios
import threading
import time
import tty
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NoReturn
from urllib.parse import urlencode

from testing.monitoring import Prometheus
from testing.picture import RELAYS, SERVERS, Picture
from testing.servers import LOOPBACK, ServerError
from testing.sites import DATABASE, Sites
from tools.picture_table import KEYS, Facts, SenderFacts, find_trouble, fit, table

RATE = 40.0  # writes a second, half of them over UDP
LOOK = 0.5  # seconds between two looks
PLAIN = 10.0  # seconds between two tables where there is no terminal
JUST_NOW = 5.0  # seconds
SPAN = 3.0  # seconds that a rate is taken over
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # a script may have set the first to be ignored


class Rate:
    """The growth rate of a number."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, number: int) -> float:
        """Add the current number, and return its growth per second."""
        now = time.monotonic()
        self._seen.append((now, number))
        while self._seen[0][0] < now - SPAN:
            self._seen.popleft()
        begin, first = self._seen[0]
        return (number - first) / (now - begin) if now > begin else 0.0


class Watch:
    """Runs the picture, carries out keys, and collects the state of all parts."""

    def __init__(self, picture: Picture, sites: Sites, prometheus: Prometheus) -> None:
        self.picture, self.sites, self.prometheus = picture, sites, prometheus
        self.over = threading.Event()
        self.parts = dict.fromkeys((*RELAYS, *SERVERS), "up")
        self.events: list[str] = []
        self.chosen = RELAYS[0]
        self._votes: dict[tuple[str, str], tuple[int, str]] = {}
        self._states: dict[str, str] = {}
        self._alerts: list[str] = []
        self._answers: Counter[str] = Counter()
        self._rates: dict[str, Rate] = {}
        self._work: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def begin(self) -> None:
        """Collect and work in threads until :attr:`over` is set."""
        for relay in RELAYS:
            for server in SERVERS:
                self._repeat(LOOK, self._ask_vote, relay, server)
        self._repeat(LOOK, self._ask_haproxy)
        self._repeat(2.0, self._ask_prometheus)
        self._repeat(0.25, self._query)
        self._repeat(0.0, self._act)

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

    # -- keys

    def press(self, key: str) -> None:
        """Carry out a key."""
        if key in "1234":
            self.chosen = list(self.parts)[int(key) - 1]
        elif key in "kfr":
            self._work.put((key, self.chosen))

    def _act(self) -> None:
        key, name = self._work.get()
        part, state = self.picture.parts[name], self.parts[name]
        began = time.strftime("%H:%M:%S")
        try:
            if key == "k" and state != "killed":
                part.kill()
                self.parts[name] = "killed"
                self.events.append(f"{began} {name} was killed")
            elif key == "f" and state == "up":
                part.pause()
                self.parts[name] = "frozen"
                self.events.append(f"{began} {name} was frozen")
            elif key == "r" and state == "frozen":
                part.resume()
                self.parts[name] = "up"
                self.events.append(f"{began} {name} was resumed")
            elif key == "r":
                self.parts[name] = "starting"
                part.restart()
                self.parts[name] = "up"
                self.events.append(f"{began} {name} was started")
        except (ServerError, OSError) as error:
            self.parts[name] = "killed"
            self.events.append(f"{began} {name}: {str(error).splitlines()[0]}")

    # -- facts

    def _rate(self, name: str, number: int) -> float:
        return self._rates.setdefault(name, Rate()).of(number)

    def facts(self) -> Facts:
        """Return the state of all parts."""
        for name, part in self.picture.parts.items():
            if self.parts[name] in ("up", "frozen") and not part.is_running:
                self.parts[name] = "killed"
                self.events.append(f"{time.strftime('%H:%M:%S')} {name} has exited")
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
            parts=dict(self.parts),
            votes=dict(self._votes),
            states=dict(self._states),
            senders=senders,
            answers={who: self._rate(f"query {who}", count) for who, count in list(self._answers.items())},
            datagrams=self._rate("udp", datagrams),
            alerts=self._alerts,
            events=list(self.events),
            chosen=self.chosen,
            addresses=f"InfluxDB for clients: {self.picture.haproxy.url}   HAProxy's page: http://{LOOPBACK}:"
            f"{self.picture.haproxy.stats_port}/   Prometheus: {self.prometheus.url}",
        )


@contextlib.contextmanager
def screen() -> Iterator[None]:
    """Take over the terminal, with keys read at once and not echoed, and restore it afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)  # Ctrl-C still works
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def show_live(watch: Watch, deadline: float) -> None:
    """Show the table and carry out keys, until q."""
    with screen():
        while time.monotonic() < deadline:
            width, height = shutil.get_terminal_size()
            lines = fit([KEYS, *table(watch.facts())], width, height)
            sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines[:-1]))
            sys.stdout.write(f"{lines[-1]}\x1b[K\x1b[J")
            sys.stdout.flush()
            if select.select([sys.stdin], [], [], LOOK)[0]:
                for key in os.read(sys.stdin.fileno(), 100).decode(errors="replace"):
                    if key == "q":
                        return
                    watch.press(key)


def show_plain(watch: Watch, deadline: float) -> None:
    """Print the table now and then, and when problems change."""
    last, due = None, 0.0
    while time.monotonic() < deadline:
        facts = watch.facts()
        trouble = find_trouble(facts)
        if trouble != last or time.monotonic() >= due:
            print(*table(facts), "", sep="\n", flush=True)
            last, due = trouble, time.monotonic() + PLAIN
        time.sleep(LOOK)


def run(stack: ExitStack, seconds: float) -> None:
    """Start everything and show it."""
    directory = tempfile.mkdtemp(prefix="picture-")
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    print(f"starting all parts in {directory} ...", flush=True)
    picture = stack.enter_context(Picture(directory))
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
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    (show_live if is_terminal else show_plain)(watch, time.monotonic() + seconds)


def stop(*_: object) -> NoReturn:
    """Exit as on Ctrl-C."""
    raise KeyboardInterrupt


def main() -> None:
    """Run until Ctrl-C or a signal."""
    parser = argparse.ArgumentParser(prog="make picture", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this many seconds")
    options = parser.parse_args()
    for number in SIGNALS:
        signal.signal(number, stop)
    with ExitStack() as stack:
        try:
            run(stack, options.seconds)
        except KeyboardInterrupt:
            print("stopping all parts ...", flush=True)
        except (ServerError, OSError) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
