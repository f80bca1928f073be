"""Two InfluxDB servers with a relay in front of them, until Ctrl-C.

All their data is in ``.run``, where the next run finds it again.
"""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
import sysconfig
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NoReturn

from testing.servers import LOOPBACK, PROJECT, Influxd, Relay, ServerError, free_port, port_is_free

USUAL_DIRECTORY = PROJECT / ".run"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CONFIGURATION = """\
# Written by `make run`: a change lasts until the next one.

[admin]
bind-addr = "{admin}"

[[http]]
name = "demo"
bind-addr = "{http}"
journal = "{directory}/journal"
output = [
    {{ name = "a", location = "{a}/write", timeout = "2s", max-delay-interval = "1s" }},
    {{ name = "b", location = "{b}/write", timeout = "2s", max-delay-interval = "1s" }},
]

[[udp]]
name = "demo-udp"
bind-addr = "{udp}"
journal = "{directory}/journal-udp"
output = [
    {{ name = "a", location = "{a}/write?db=demo", max-delay-interval = "1s" }},
    {{ name = "b", location = "{b}/write?db=demo", max-delay-interval = "1s" }},
]
"""

GUIDE = """\
influxrelay is listening on http://{http} and sends each write to two InfluxDB servers:
  a  {a}  (process {a_pid})
  b  {b}  (process {b_pid})

Write a point without a timestamp; the relay adds one:
  curl -i -XPOST 'http://{http}/write?db=demo' --data-binary 'weather,city=Oslo temperature=-3.5'

Query through the relay, which asks a server that is in sync (-i shows which one, in X-Influxrelay-Backend):
  curl -i -G 'http://{http}/query?db=demo&pretty=true' --data-urlencode 'q=SELECT * FROM weather'
  curl -i -G 'http://{http}/query' --data-urlencode 'q=SHOW DATABASES'

Query both servers; they show the same timestamp:
  curl -G '{a}/query?db=demo&pretty=true' --data-urlencode 'q=SELECT * FROM weather'
  curl -G '{b}/query?db=demo&pretty=true' --data-urlencode 'q=SELECT * FROM weather'

Write over UDP (in bash; a batch is sent after at most a second):
  echo 'weather,city=Bergen temperature=7.5' >/dev/udp/{udp_host}/{udp_port}

Freeze server b and write. The relay keeps what b misses, and after two seconds without an answer reports b as down:
  kill -STOP {b_pid}
  curl -i -XPOST 'http://{http}/write?db=demo' --data-binary 'weather,city=Oslo temperature=-4.0'
  curl 'http://{admin}/health/backends/b'
  curl 'http://{admin}/health/queries'
  {influxrelay} queues

Let b continue; it catches up:
  kill -CONT {b_pid}
  {influxrelay} queues

Let b refuse a write after the client got its 204, because the field has another type there. It becomes a dead letter:
  curl -i -XPOST '{b}/write?db=demo' --data-binary 'clash value="text"'
  kill -STOP {b_pid}
  curl -i -XPOST 'http://{http}/write?db=demo' --data-binary 'clash value=1'
  kill -CONT {b_pid}
  {influxrelay} dead-letters list

See how the relay is, in a terminal (q quits), in a browser at http://{admin}/, or from scripts:
  {influxrelay} top
  curl 'http://{admin}/health'
  curl 'http://{admin}/status'
  curl 'http://{admin}/metrics'

Change {config}, and apply it:
  {influxrelay} reload

The log is {log}. Ctrl-C stops everything.
"""


def choose_port(given: int | None, preferred: int, kind: Literal["tcp", "udp"] = "tcp") -> int:
    """Return the given port, else the preferred one if it is free, else any free one."""
    if given is not None:
        return given
    return preferred if port_is_free(preferred, kind) else free_port(kind)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    for name, what, usual in (
        ("--http-port", "HTTP port of the relay", 9096),
        ("--udp-port", "UDP port of the relay", 9096),
        ("--admin-port", "port of the relay's admin listener", 9196),
        ("--a-port", "port of the first InfluxDB", 8086),
        ("--b-port", "port of the second InfluxDB", 7086),
    ):
        parser.add_argument(name, type=int, metavar="PORT", help=f"{what} (default: {usual} if it is free)")
    parser.add_argument(
        "--directory", type=Path, default=USUAL_DIRECTORY, metavar="DIRECTORY", help="for all data (default: .run)"
    )
    return parser.parse_args()


def stop(*_: object) -> NoReturn:
    """Exit in order, and ignore further signals."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit()


def run(arguments: argparse.Namespace, stack: ExitStack) -> NoReturn:
    """Start everything, print how to use it, and wait."""
    directory = arguments.directory.resolve()
    servers: dict[str, Influxd] = {}
    for name, given, usual in (("a", arguments.a_port, 8086), ("b", arguments.b_port, 7086)):
        servers[name] = stack.enter_context(Influxd(directory / name, http_port=choose_port(given, usual)))
        servers[name].create_database("demo")
    http_port = choose_port(arguments.http_port, 9096)
    udp_port = choose_port(arguments.udp_port, 9096, "udp")
    places = {
        "http": f"{LOOPBACK}:{http_port}",
        "udp": f"{LOOPBACK}:{udp_port}",
        "admin": f"{LOOPBACK}:{choose_port(arguments.admin_port, 9196)}",
        "a": servers["a"].url,
        "b": servers["b"].url,
    }
    relay = stack.enter_context(Relay(directory, CONFIGURATION.format(**places, directory=directory), http_port))
    command = Path(sysconfig.get_path("scripts")) / "influxrelay"
    print(
        GUIDE.format(
            **places,
            a_pid=servers["a"].pid,
            b_pid=servers["b"].pid,
            udp_host=LOOPBACK,
            udp_port=udp_port,
            influxrelay=f"{_relative(command)} --config {_relative(relay.config)}",
            config=_relative(relay.config),
            log=_relative(relay.log),
        ),
        flush=True,
    )
    while relay.is_running:
        for name in [name for name, server in servers.items() if not server.is_running]:
            print(f"InfluxDB {name} has exited; the relay goes on and keeps what it misses.", flush=True)
            del servers[name]
        time.sleep(0.2)
    sys.exit(f"The relay has exited; see {_relative(relay.log)}")


def _relative(path: Path) -> Path:
    return path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path


def main() -> None:
    """Run until a signal comes."""
    arguments = parse_arguments()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    with (arguments.directory / "lock").open("w") as lock, ExitStack() as stack:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("make run is already running in this directory")
        for number in SIGNALS:
            signal.signal(number, stop)
        try:
            run(arguments, stack)
        except ServerError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
