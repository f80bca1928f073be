"""Measure the relay, and others next to it, in one run.

wrk writes to each contender in turn, nginx (answers 204) or two real InfluxDB servers stand behind it, and what
arrives there is counted. Each row of the results is one scenario; the contenders take turns, and of all rounds the
median counts.

A scenario's name tells the backends, and clients x lines in each write. "rss" is the memory after a minute of 64x1000,
"udp" sends one line in each datagram, faster and faster until lines are lost.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from bench import machine, measure
from bench.backends import Backends, make
from bench.contenders import Contender, Direct, Mirror, Relay, influxrelay
from bench.report import Report
from bench.scenarios import (
    INFLUXD_PORTS,
    MIRROR_PORT,
    RELAY_PORT,
    RSS,
    SINK_PORTS,
    UDP_SINK_PORTS,
    Scenario,
    scenarios,
)
from testing.servers import LOOPBACK, ServerError, find_program

_PEERS = f"""\
A peer is another relay: --peer "NAME=COMMAND,URL". COMMAND is run by "sh -c 'exec COMMAND'" and must stay in the
foreground; URL tells where it listens. In COMMAND, {{config}} is replaced by the path of a configuration file in
InfluxDB Relay's dialect, written for each scenario, which listens at URL (UDP at the same address); {{backends}} is
replaced by sinks, influxd or udp, to choose among files of your own:

  --peer "go=/path/to/influxdb-relay -config {{config}},http://{LOOPBACK}:9099"

A peer whose COMMAND has neither runs the scenarios with sinks only. The backends' ports on {LOOPBACK} are:

  sinks    {SINK_PORTS[0]} and {SINK_PORTS[1]} (HTTP)
  influxd  {INFLUXD_PORTS[0]} and {INFLUXD_PORTS[1]} (HTTP)
  udp      {UDP_SINK_PORTS[0]} and {UDP_SINK_PORTS[1]} (UDP)

influxrelay listens on {RELAY_PORT}, nginx as a relay on {MIRROR_PORT}.
"""

_MARKS = (".. begin of the table", ".. end of the table")


def _peer(text: str) -> Relay:
    name, _, rest = text.partition("=")
    command, _, url = rest.rpartition(",")
    parts = urlsplit(url.strip())
    if not (name and command and parts.scheme == "http" and parts.hostname and parts.port):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=COMMAND,http://HOST:PORT")
    return Relay(name, command, f"{parts.hostname}:{parts.port}")


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    return text


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=_PEERS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=_at_least_one, help="for each measurement (default: 5, --quick: 1)")
    add("--rounds", type=_at_least_one, help="of which the median counts (default: 3, --quick: 1)")
    add("--quick", action="store_true", help="a few scenarios, in about a minute: to try, not to publish")
    add("--only", type=_pattern, metavar="REGEX", default="", help="the scenarios in whose names this is found")
    add("--list", action="store_true", help="print the scenarios' names")
    add("--peer", type=_peer, action="append", default=[], metavar="NAME=COMMAND,URL", help="see below; repeatable")
    add("--output", choices=("text", "rst"), default="text", help="(default: text)")
    add(
        "--into",
        type=Path,
        metavar="FILE",
        help="replace the table in this file, such as docs/benchmarks.rst, by the new one",
    )
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (1 if arguments.quick else 5)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    return arguments


class _Run:
    """One run of the benchmark, whose files are in a directory of its own."""

    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self._arguments = arguments
        self._directory = directory
        self._contenders: list[Contender] = [
            influxrelay(),
            influxrelay(journal=True),
            Mirror(),
            *arguments.peer,
            Direct(),
        ]
        about = (
            f"Each figure is the median of {arguments.rounds} round(s), {arguments.seconds} s each. "
            "In parentheses: the figure divided by influxrelay's."
        )
        self.report = Report(machine.describe(self._contenders), [each.name for each in self._contenders], about)

    def all(self, chosen: list[Scenario]) -> None:
        """Measure every contender in these scenarios."""
        for kind in dict.fromkeys(scenario.backends for scenario in chosen):
            with make(kind, self._directory) as backends:
                for scenario in chosen:
                    if scenario.backends == kind:
                        self._rounds(scenario, backends)

    def _rounds(self, scenario: Scenario, backends: Backends) -> None:
        for number in range(self._arguments.rounds):
            for contender in self._contenders:
                if contender.takes(scenario):
                    label = f"{scenario.name}, round {number + 1}, {contender.name}"
                    self._once(label, contender, scenario, backends)

    def _once(self, label: str, contender: Contender, scenario: Scenario, backends: Backends) -> None:
        directory = self._directory / re.sub(r"[^\w.-]", "-", contender.name)
        seconds = scenario.seconds or self._arguments.seconds
        try:
            if scenario.backends == "udp":
                rates = measure.QUICK_RATES if self._arguments.quick else measure.RATES
                figures, troubles = measure.over_udp(contender, scenario, backends, seconds, directory, rates=rates)
            else:
                figures, troubles = measure.over_http(contender, scenario, backends, seconds, directory)
        except (ServerError, OSError) as error:  # the others go on
            figures, troubles = {}, [str(error)]
        told = ", ".join(f"{key} {value:,.1f}" for key, value in figures.items())
        print(f"{label}: {'; '.join([told, *troubles])}", file=sys.stderr)
        kept = {"rss": figures["rss"]} if scenario.name == RSS and figures else figures
        self.report.results[scenario.name][contender.name].append(kept)
        self.report.troubles += [f"{label}: {' '.join(trouble.split())}" for trouble in troubles]


def _replace_table(file: Path, table: str) -> None:
    begin, end = _MARKS
    before, _, rest = file.read_text().partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"{file} has no lines {begin!r} and {end!r}")
    file.write_text(f"{before}{begin}\n\n{table}\n{end}{after}")


def main() -> None:
    """Run, and end with status 1 if anything went wrong."""
    arguments = _arguments()
    chosen = [each for each in scenarios(quick=arguments.quick) if re.search(arguments.only, each.name)]
    if not chosen:
        sys.exit(f"bench: no scenario is named like {arguments.only!r}; see --list")
    if arguments.list:
        print(*(scenario.name for scenario in chosen), sep="\n")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are stopped on the way out
    try:
        for program, package in (("nginx", "nginx"), ("wrk", "wrk"), ("influxd", "influxdb")):
            find_program(program, package)
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            run = _Run(arguments, Path(directory))
            run.all(chosen)
    except ServerError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    if arguments.into:
        _replace_table(arguments.into, run.report.show(rst=True))
    else:
        print(run.report.show(rst=arguments.output == "rst"), end="")
    sys.exit(1 if run.report.troubles else 0)


if __name__ == "__main__":
    main()
