"""The HTTP load: wrk, with a script for each scenario."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.scenarios import DATABASE, REQUEST_DIGITS, Scenario
from testing.servers import ServerError, find_program

_HEAD = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "text/plain"
"""

# Points of their own for each request: InfluxDB would overwrite the same ones, and COUNT could not tell.
_FRESH = """\
local pieces = {{ {pieces} }}
local number = 0
request = function()
    number = number + 1
    return wrk.format(nil, nil, nil, table.concat(pieces, string.format("%0{digits}d", number)))
end
"""

_TAIL = """\
done = function(summary, latency)
    local errors = summary.errors
    io.write("bench ", table.concat({
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.status, errors.connect, errors.read, errors.write, errors.timeout,
    }, " "), "\\n")
end
"""


@dataclass(frozen=True)
class Load:
    """What wrk saw; times are in seconds."""

    requests: int
    duration: float
    p50: float
    p99: float
    errors: dict[str, int]  # none of them 0

    @property
    def taken(self) -> int:
        """How many requests were answered with success."""
        return self.requests - self.errors.get("non-2xx", 0)


def _literal(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:03}" for byte in data) + '"'


def _script(scenario: Scenario) -> str:
    if scenario.gzip:
        return f'{_HEAD}wrk.headers["Content-Encoding"] = "gzip"\nwrk.body = {_literal(scenario.body)}\n{_TAIL}'
    if scenario.backends != "influxd":
        return f"{_HEAD}wrk.body = {_literal(scenario.body)}\n{_TAIL}"
    pieces = ", ".join(_literal(piece) for piece in scenario.body.split(REQUEST_DIGITS.encode()))
    return _HEAD + _FRESH.format(pieces=pieces, digits=len(REQUEST_DIGITS)) + _TAIL


def run(scenario: Scenario, address: str, seconds: float, directory: Path) -> Load:
    """Write to an address for some whole seconds."""
    directory.mkdir(exist_ok=True)
    script = directory / f"{scenario.name.replace(' ', '-')}.lua"
    script.write_text(_script(scenario))
    url = f"http://{address}/write?db={DATABASE}&precision=ns"
    options = ["-t1", f"-c{scenario.clients}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", str(script), url]
    done = subprocess.run([find_program("wrk", "wrk"), *options], capture_output=True, text=True, check=False)
    figures = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("bench ")]
    if done.returncode or not figures:
        raise ServerError(f"wrk ended with status {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
    requests, duration, p50, p99, *errors = (float(figure) for figure in figures[0])
    names = ("non-2xx", "not connected", "read errors", "write errors", "timeouts")
    troubles = {name: int(count) for name, count in zip(names, errors, strict=True) if count}
    return Load(int(requests), duration / 1e6, p50 / 1e6, p99 / 1e6, troubles)
