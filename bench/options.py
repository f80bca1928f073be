"""The command line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from urllib.parse import urlsplit

from bench.contenders import Relay
from bench.testbed import FIRST_PORT, Ports
from testing.servers import LOOPBACK


def _others() -> str:
    ports = Ports()
    return f"""\
A peer is another relay: --peer "NAME=COMMAND,URL". COMMAND is run by "sh -c 'exec COMMAND'" and must stay in the
foreground; URL tells where it listens, for HTTP and at the same address for UDP. In COMMAND, {{config}} is replaced
by the path of a configuration file in InfluxDB Relay's dialect, written for each scenario, which listens at URL;
{{backends}} is replaced by sinks, influxd or udp, to choose among files of your own:

  --peer "InfluxDB Relay=/path/to/influxdb-relay -config {{config}},http://{LOOPBACK}:9099"

A peer whose COMMAND has neither takes part with sinks only. The backends' ports on {LOOPBACK} are:

  sinks    {ports.sinks[0]} and {ports.sinks[1]} (HTTP)
  influxd  {ports.influxd[0]} and {ports.influxd[1]} (HTTP)
  udp      {ports.udp_sinks[0]} and {ports.udp_sinks[1]} (UDP)

A checkout is another version of influxrelay: --checkout NAME=DIRECTORY. It is run by the virtual environment in its
.venv if there is one, with and without a journal, in every scenario.

The goals divide by nginx, by the first peer and by the first checkout.
"""


class Arguments(argparse.Namespace):
    """What the command line says."""

    seconds: int
    rounds: int
    quick: bool
    only: str
    among: str
    names: bool
    peer: list[Relay]
    checkout: list[tuple[str, Path]]
    first_port: int
    output: str
    goals: bool
    publish: bool
    save: Path | None
    load: Path | None


def peer(text: str) -> Relay:
    """Return the relay that NAME=COMMAND,URL names."""
    name, _, rest = text.partition("=")
    command, _, url = rest.rpartition(",")
    parts = urlsplit(url.strip())
    if not (name and command and parts.scheme == "http" and parts.hostname and parts.port):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=COMMAND,http://HOST:PORT")
    return Relay(name, command, f"{parts.hostname}:{parts.port}")


def _checkout(text: str) -> tuple[str, Path]:
    name, _, directory = text.partition("=")
    root = Path(directory).resolve()
    if not (name and directory and (root / "influxrelay").is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIRECTORY with a checkout of influxrelay")
    return name, root


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None
    return text


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def parse(description: str, words: list[str] | None = None) -> Arguments:
    """Return what these words say, or those that the program was started with."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=description,
        epilog=_others(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("what is measured").add_argument
    add("--quick", action="store_true", help="a few scenarios, in about a minute: to try, not to publish")
    add("--seconds", type=_at_least_one, help="for each measurement (default: 5, --quick: 1)")
    add("--rounds", type=_at_least_one, help="of which the median counts (default: 3, --quick: 1)")
    add("--only", type=_pattern, metavar="REGEX", default="", help="the scenarios in whose names this is found")
    add("--among", type=_pattern, metavar="REGEX", default="", help="the contenders in whose names this is found")
    add("--list", dest="names", action="store_true", help="print the scenarios' names")
    add("--peer", type=peer, action="append", default=[], metavar="NAME=COMMAND,URL", help="see below; repeatable")
    add("--checkout", type=_checkout, action="append", default=[], metavar="NAME=DIR", help="see below; repeatable")
    add("--first-port", type=int, metavar="PORT", default=FIRST_PORT, help="of eleven (default: %(default)s)")
    add = parser.add_argument_group("what becomes of it").add_argument
    add("--output", choices=("text", "rst"), default="text", help="(default: text)")
    add("--goals", action="store_true", help="print the ratios that the relay is to keep, and whether it does")
    add("--publish", action="store_true", help="write the tables and the picture of docs/benchmarks.rst")
    add("--save", type=Path, metavar="FILE", help="write all figures to a file")
    add("--load", type=Path, metavar="FILE", help="measure nothing, and show what was saved")
    arguments = parser.parse_args(words, Arguments())
    arguments.seconds = arguments.seconds or (1 if arguments.quick else 5)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    return arguments
