"""The HTTP load: wrk, with a script for each scenario.

wrk is the cheapest of Debian's load generators: about 7 us of CPU for a write of one line on a kept connection, h2load
takes 9, and neither ab nor h2load tells percentiles of HTTP/1.1 with a body of 1,000 lines at that price.
"""

from __future__ import annotations

import re
import resource
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from bench.scenarios import REQUEST_DIGITS, Scenario
from testing.servers import ServerError, find_program

THREADS = 2  # of wrk, so that one full core is not its limit
_TIMEOUT = 10  # seconds for an answer

_HEAD = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "text/plain"
"""

# Points of their own for each request: InfluxDB would overwrite the same ones, and COUNT could not tell. Each thread
# has a range of numbers.
_FRESH = """\
local threads = 0
setup = function(thread)
    thread:set("number", threads * {range})
    threads = threads + 1
end
local pieces = {{ {pieces} }}
request = function()
    number = number + 1
    return wrk.format(nil, nil, nil, table.concat(pieces, string.format("%0{digits}d", number)))
end
"""

TAIL = """\
done = function(summary, latency)
    local errors = summary.errors
    io.write("bench ", table.concat({
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.status, errors.connect, errors.read, errors.write, errors.timeout,
    }, " "), "\\n")
end
"""
_ERRORS = ("non-2xx", "not connected", "read errors", "write errors", "timeouts")


@dataclass(frozen=True)
class Load:
    """What wrk saw, and what it took; times are in seconds."""

    requests: int
    duration: float
    p50: float
    p99: float
    errors: dict[str, int]  # none of them 0
    cpu: float = 0

    @property
    def taken(self) -> int:
        """How many requests were answered with success."""
        return self.requests - self.errors.get("non-2xx", 0)


def literal(data: bytes) -> str:
    """Return bytes as Lua writes them."""
    return '"' + "".join(f"\\{byte:03}" for byte in data) + '"'


def script(scenario: Scenario) -> str:
    """Return the Lua script for a scenario."""
    if scenario.backends == "influxd":
        pieces = ", ".join(literal(piece) for piece in scenario.body.split(REQUEST_DIGITS.encode()))
        digits = len(REQUEST_DIGITS)
        return _HEAD + _FRESH.format(pieces=pieces, digits=digits, range=10**digits // THREADS) + TAIL
    encoding = 'wrk.headers["Content-Encoding"] = "gzip"\n' if scenario.gzip else ""
    return f"{_HEAD}{encoding}wrk.body = {literal(scenario.body)}\n{TAIL}"


def parse(output: str) -> Load:
    """Return what the script has printed at its end; raise ValueError if it has not."""
    found = re.search(r"(?m)^bench (.+)$", output)
    if found is None:
        raise ValueError(output)
    requests, duration, p50, p99, *errors = (float(figure) for figure in found[1].split())
    troubles = {name: int(count) for name, count in zip(_ERRORS, errors, strict=True) if count}
    return Load(int(requests), duration / 1e6, p50 / 1e6, p99 / 1e6, troubles)


def run(scenario: Scenario, url: str, seconds: float, directory: Path, *, threads: int = THREADS) -> Load:
    """Write to a URL for some whole seconds."""
    return run_script(script(scenario), scenario.name, scenario.clients, url, seconds, directory, threads=threads)


def run_script(  # noqa: PLR0917
    lua: str, name: str, clients: int, url: str, seconds: float, directory: Path, *, threads: int = THREADS
) -> Load:
    """Do what a script says for some whole seconds; at its end it prints what :data:`TAIL` prints."""
    file = directory / f"{name.replace(' ', '-')}.lua"
    file.write_text(lua)
    threads = min(threads, clients)
    options = [f"-t{threads}", f"-c{clients}", f"-d{seconds:.0f}s", f"--timeout={_TIMEOUT}s", f"-s{file}", url]
    before = _cpu_of_children()
    done = subprocess.run([find_program("wrk", "wrk"), *options], capture_output=True, text=True, check=False)
    cpu = _cpu_of_children() - before
    try:
        load = parse(done.stdout)
    except ValueError:
        raise ServerError(
            f"wrk ended with status {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"
        ) from None
    return replace(load, cpu=cpu)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
