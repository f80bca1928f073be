"""Show where the relay spends its time in Python while wrk writes to it: python -m bench.hotspots.

The figures are cProfile's: it makes small functions look dearer than they are, and does not see inside C. Believe the
order and the numbers of calls; for what a change costs, see bench.instructions.
"""

from __future__ import annotations

import argparse
import pstats
import tempfile
from pathlib import Path

from bench import wrk
from bench.backends import make
from bench.contenders import influxrelay
from bench.scenarios import Scenario, scenarios
from bench.testbed import Ports, Testbed
from testing.certificates import Authority
from testing.servers import PROJECT

_FIRST_PORT = 18320  # not where a benchmark runs, which may be under way


def profile(checkout: Path, scenario: Scenario, testbed: Testbed, seconds: int, *, journal: bool) -> tuple[Path, int]:
    """Return the file with the statistics, and the number of writes."""
    relay = influxrelay(testbed.ports.relay, root=checkout, journal=journal)
    file = testbed.directory / "profile"
    options = f"--profile={file} --profiler=cprofile --savestats"
    relay.command = relay.command.replace(" --nodaemon ", f" --nodaemon {options} ")
    with make(scenario.backends, testbed) as backends:
        backends.reset()
        with relay.run(scenario, backends):
            load = wrk.run(scenario, relay.url(scenario, backends), seconds, testbed.directory)
    return file, load.requests


def main() -> None:
    """Profile, and print the functions that took most."""
    known = {each.name: each for each in scenarios(quick=False) if each.backends != "udp"}
    parser = argparse.ArgumentParser(prog="python -m bench.hotspots", description=__doc__)
    parser.add_argument("scenario", nargs="?", choices=known, default="64x1", metavar="SCENARIO")
    parser.add_argument("--journal", action="store_true", help="with a journal")
    parser.add_argument("--checkout", type=Path, default=PROJECT, help="another checkout of influxrelay")
    parser.add_argument("--seconds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--first-port", type=int, metavar="PORT", default=_FIRST_PORT, help="(default: %(default)s)")
    parser.add_argument("--functions", type=int, default=40, help="how many to print (default: %(default)s)")
    parser.add_argument("--cumulative", action="store_true", help="by the time with all that they call")
    options = parser.parse_args()
    scenario, checkout = known[options.scenario], options.checkout.resolve()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        testbed = Testbed(Path(name), Ports(options.first_port), Authority(f"{name}/certificates").issue())
        file, writes = profile(checkout, scenario, testbed, options.seconds, journal=options.journal)
        print(f"{writes:,} writes")
        statistics = pstats.Stats(str(file))
    statistics.strip_dirs().sort_stats("cumulative" if options.cumulative else "tottime")
    statistics.print_stats(options.functions)


if __name__ == "__main__":
    main()
