"""Two InfluxDB servers and the relay before them, until Ctrl-C.

Everything that they write is kept below ``.run``, so the next run finds it again.
"""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
import time
from contextlib import ExitStack
from typing import Literal, NoReturn

from testing.servers import LOOPBACK, PROJECT, Influxd, Relay, ServerError, free_port, port_is_free

DIRECTORY = PROJECT / ".run"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CONFIGURATION = """\
# Written by `make run`, again and again: copy it, don't edit it.

[[http]]
name = "demo"
bind-addr = "{http}"
output = [
    {{ name = "a", location = "{a}/write" }},
    {{ name = "b", location = "{b}/write" }},
]

[[udp]]
name = "demo-udp"
bind-addr = "{udp}"
output = [
    {{ name = "a", location = "{a}/write?db=demo" }},
    {{ name = "b", location = "{b}/write?db=demo" }},
]
"""

GUIDE = """\
influxrelay takes writes at http://{http} and puts each on two InfluxDB servers:
{a} (process {a_pid}) and {b} (process {b_pid}).

Write:
  curl -i -XPOST 'http://{http}/write?db=demo' --data-binary 'weather,city=Oslo temperature=-3.5'

Read it back from both:
  curl -G '{a}/query?db=demo&pretty=true' --data-urlencode 'q=SELECT * FROM weather'
  curl -G '{b}/query?db=demo&pretty=true' --data-urlencode 'q=SELECT * FROM weather'

Write over UDP (bash; up to a second until it can be read):
  echo 'weather,city=Bergen temperature=7.5' >/dev/udp/{udp_host}/{udp_port}

The relay's configuration is {config}, its log {log}.
Ctrl-C stops everything.
"""


def choose_port(given: int | None, preferred: int, kind: Literal["tcp", "udp"] = "tcp") -> int:
    """Return the port that was asked for, else the usual one if it is free, else any free one."""
    if given is not None:
        return given
    return preferred if port_is_free(preferred, kind) else free_port(kind)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    for name, what, usual in (
        ("--http-port", "HTTP port of the relay", 9096),
        ("--udp-port", "UDP port of the relay", 9096),
        ("--a-port", "port of the first InfluxDB", 8086),
        ("--b-port", "port of the second InfluxDB", 7086),
    ):
        parser.add_argument(name, type=int, metavar="PORT", help=f"{what} (default: {usual} if it is free)")
    return parser.parse_args()


def stop(*_: object) -> NoReturn:
    """Leave in order, whatever other signals come meanwhile."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit()


def run(arguments: argparse.Namespace, stack: ExitStack) -> NoReturn:
    """Start everything, tell how to use it, and wait."""
    servers: dict[str, Influxd] = {}
    for name, given, usual in (("a", arguments.a_port, 8086), ("b", arguments.b_port, 7086)):
        servers[name] = stack.enter_context(Influxd(DIRECTORY / name, http_port=choose_port(given, usual)))
        servers[name].create_database("demo")
    http_port = choose_port(arguments.http_port, 9096)
    udp_port = choose_port(arguments.udp_port, 9096, "udp")
    places = {
        "http": f"{LOOPBACK}:{http_port}",
        "udp": f"{LOOPBACK}:{udp_port}",
        "a": servers["a"].url,
        "b": servers["b"].url,
    }
    relay = stack.enter_context(Relay(DIRECTORY, CONFIGURATION.format(**places), http_port))
    print(
        GUIDE.format(
            **places,
            a_pid=servers["a"].pid,
            b_pid=servers["b"].pid,
            udp_host=LOOPBACK,
            udp_port=udp_port,
            config=relay.config.relative_to(PROJECT),
            log=relay.log.relative_to(PROJECT),
        ),
        flush=True,
    )
    while relay.is_running:
        for name in [name for name, server in servers.items() if not server.is_running]:
            print(f"InfluxDB {name} has ended; the relay goes on without it.", flush=True)
            del servers[name]
        time.sleep(0.2)
    sys.exit(f"The relay has ended; see {relay.log}")


def main() -> None:
    """Run until a signal says stop."""
    arguments = parse_arguments()
    DIRECTORY.mkdir(exist_ok=True)
    with (DIRECTORY / "lock").open("w") as lock, ExitStack() as stack:
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
