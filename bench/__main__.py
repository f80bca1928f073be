"""Measure the relay, and others beside it, in one run.

wrk writes to each contender in turn, two sinks that answer 204 or two real InfluxDB servers stand behind it, and what
arrives there is counted. Each row of the results is one scenario; the contenders take turns, and the median of the
rounds counts.

A scenario's name tells clients x lines in each write. "fsync" is journal-sync = "full", "rss" the memory after a
minute, "udp" one line in each datagram, faster and faster until lines are lost. Journals are written below $TMPDIR.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
from pathlib import Path
from textwrap import shorten

from bench import goals, machine, measure, options, picture
from bench.backends import Backends, make
from bench.contenders import Contender, Direct, Relay, influxrelay
from bench.proxies import HAProxy, Mirror
from bench.report import Report, Role
from bench.scenarios import Scenario, scenarios
from bench.testbed import Ports, Testbed
from influxrelay.core.text import count
from testing.certificates import Authority
from testing.servers import PROJECT, ServerError, find_program

_PAGE = PROJECT / "docs" / "benchmarks.rst"
_PICTURE = PROJECT / "docs" / "images" / "benchmarks.svg"
_MARKS = (".. begin of the table", ".. end of the table")


class _Run:
    """One run of the benchmark."""

    def __init__(self, arguments: options.Arguments, testbed: Testbed) -> None:
        self._arguments = arguments
        self._testbed = testbed
        ports = testbed.ports
        ours = [influxrelay(ports.relay), influxrelay(ports.relay, name="with a journal", journal=True)]
        checkouts = [
            influxrelay(ports.relay, name=name, root=root, journal=journal)
            for label, root in arguments.checkout
            for name, journal in ((label, False), (f"{label} with a journal", True))
        ]
        mirror = Mirror(ports.mirror)
        every: list[Contender] = [*ours, mirror, HAProxy(ports.haproxy), *arguments.peer, *checkouts, Direct()]
        self._contenders = [each for each in every if re.search(arguments.among, each.name)]
        who: list[tuple[Role, list[Relay] | list[Mirror]]] = [
            ("relay", ours[:1]),
            ("journal", ours[1:]),
            ("mirror", [mirror]),
            ("peer", arguments.peer),
            ("earlier", checkouts),
        ]
        facts = {
            **machine.describe([*arguments.peer, *checkouts[::2]]),
            "Each figure": f"the median of {count(arguments.rounds, 'round')} of {arguments.seconds} s",
        }
        roles = {role: found[0].name for role, found in who if found}
        self.report = Report(facts, [each.name for each in self._contenders], roles)

    def all(self, chosen: list[Scenario]) -> None:
        """Measure every contender in these scenarios."""
        for kind in dict.fromkeys(scenario.backends for scenario in chosen):
            with make(kind, self._testbed) as backends:
                for scenario in chosen:
                    if scenario.backends == kind:
                        self._rounds(scenario, backends)

    def _rounds(self, scenario: Scenario, backends: Backends) -> None:
        for number in range(self._arguments.rounds):
            for contender in self._contenders:
                if contender.takes(scenario):
                    label = f"{scenario.name}, round {number + 1}, {contender.name}"
                    self._once(label, contender, scenario, backends)
        if self._arguments.save:
            self.report.save(self._arguments.save)

    def _once(self, label: str, contender: Contender, scenario: Scenario, backends: Backends) -> None:
        seconds = scenario.seconds or self._arguments.seconds
        try:
            if scenario.backends == "udp":
                rates = measure.QUICK_RATES if self._arguments.quick else measure.RATES
                figures, troubles = measure.over_udp(contender, scenario, backends, seconds, rates=rates)
            else:
                figures, troubles = measure.over_http(contender, scenario, backends, seconds)
        except (ServerError, OSError) as error:
            figures, troubles = {}, [str(error)]
            backends.reset()  # the others go on, unless the backends are gone
        shown = ", ".join(f"{key} {value:,.2f}" for key, value in figures.items())
        print(f"{label}: {'; '.join([shown, *troubles])}", file=sys.stderr)
        self.report.add(scenario.name, contender.name, figures)
        self.report.troubles += [f"{label}: {shorten(trouble, 300)}" for trouble in troubles]


def _measured(arguments: options.Arguments, chosen: list[Scenario]) -> Report:
    for program, package in (("nginx", "nginx"), ("haproxy", "haproxy"), ("wrk", "wrk"), ("influxd", "influxdb")):
        find_program(program, package)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        certificate = Authority(f"{name}/certificates").issue()
        run = _Run(arguments, Testbed(Path(name), Ports(arguments.first_port), certificate))
        run.all(chosen)
        return run.report


def _publish(report: Report) -> None:
    begin, end = _MARKS
    before, _, rest = _PAGE.read_text().partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"{_PAGE} has no lines {begin!r} and {end!r}")
    _PAGE.write_text(f"{before}{begin}\n\n{report.show(rst=True)}\n{end}{after}")
    _PICTURE.write_text(picture.draw(report))


def main() -> None:
    """Run, and end with status 1 if anything went wrong."""
    arguments = options.parse(__doc__ or "")
    chosen = [each for each in scenarios(quick=arguments.quick) if re.search(arguments.only, each.name)]
    if not chosen:
        sys.exit(f"bench: no scenario matches {arguments.only!r}; see --list")
    if arguments.names:
        print(*(scenario.name for scenario in chosen), sep="\n")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are stopped on the way out
    try:
        report = Report.load(arguments.load) if arguments.load else _measured(arguments, chosen)
    except (ServerError, OSError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    if arguments.publish:
        _publish(report)
    else:
        print(report.show(rst=arguments.output == "rst"), end="")
    if arguments.goals:
        print("\n" + goals.show(report), end="")
    sys.exit(1 if report.troubles else 0)


if __name__ == "__main__":
    main()
