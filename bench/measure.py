"""One cell of the results: a contender in a scenario, once."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from bench import wrk
from bench.backends import Backends, UDPSinks
from bench.contenders import Contender
from bench.processes import cpu_seconds, resident_bytes
from bench.scenarios import LINE_LENGTH, Scenario, body

Figures = dict[str, float]  # by metric; the report knows them

RATES = (10_000, 20_000, 40_000, 60_000, 80_000, 120_000, 160_000)  # lines per second, over UDP
QUICK_RATES = (20_000, 60_000)
_TRIES = 2  # at each rate: a machine's hiccup is not the relay's limit
_ENOUGH = 0.95  # of a rate; if the sender does not reach it, the machine has no more to give


def over_http(
    contender: Contender, scenario: Scenario, backends: Backends, seconds: float, directory: Path
) -> tuple[Figures, list[str]]:
    """Return the figures, and what went wrong."""
    backends.reset()
    with contender.run(scenario, backends, directory) as session:
        before = cpu_seconds(session)
        load = wrk.run(scenario, contender.address, seconds, directory)
        cpu = cpu_seconds(session) - before
        memory = resident_bytes(session)
        received = _settled(backends, scenario, load.taken * scenario.lines)[: contender.copies]
        if contender.copies > 1:  # what one backend still had to get is the relay's work too
            cpu = cpu_seconds(session) - before
    troubles = [f"{name}: {count}" for name, count in load.errors.items()]
    # Each client may have one request under way when wrk stops.
    least, most = load.taken * scenario.lines, (load.requests + scenario.clients) * scenario.lines
    troubles += [
        f"{lines:,} lines reached a backend, of {least:,} that were acknowledged"
        for lines in received
        if not least <= lines <= most
    ]
    writes = max(load.taken, 1)
    figures = {
        "writes/s": load.taken / load.duration,
        "lines/s": load.taken * scenario.lines / load.duration,
        "p50": load.p50 * 1e3,
        "p99": load.p99 * 1e3,
        "cpu": cpu / writes * 1e6,
        "rss": memory / 2**20,
    }
    return figures, troubles


def over_udp(
    contender: Contender,
    scenario: Scenario,
    backends: Backends,
    seconds: float,
    directory: Path,
    *,
    rates: tuple[int, ...],
) -> tuple[Figures, list[str]]:
    """Send faster and faster, until lines are lost; return the figures, and what went wrong."""
    assert isinstance(backends, UDPSinks)
    figures: Figures = {}
    troubles: list[str] = []
    overflows = backends.overflows()
    with contender.run(scenario, backends, directory) as session:
        for rate in rates:
            for _ in range(_TRIES):
                backends.reset()
                before = cpu_seconds(session)
                sent, reached = _send(contender.address, rate, seconds)
                received = min(_settled(backends, scenario, sent))
                cpu = cpu_seconds(session) - before
                if received >= sent:
                    break
            if received < sent:
                figures |= {"udp lossy rate": reached, "udp loss": 100 * (1 - received / sent)}
                break
            figures |= {"udp rate": reached, "udp lines/cpu": received / max(cpu, 0.01)}
            if reached < rate * _ENOUGH:
                break
    if backends.overflows() > overflows:
        troubles.append("the sinks were too slow: some of the loss is theirs")
    return figures, troubles


def _settled(backends: Backends, scenario: Scenario, expected: int) -> list[int]:
    """Wait until both backends have what they should, or get nothing more for a second; return what they have."""
    received, since = backends.received(scenario), time.monotonic()
    while min(received) < expected and time.monotonic() - since < 1:
        time.sleep(0.15)
        now = backends.received(scenario)
        if now != received:
            received, since = now, time.monotonic()
    return received


def _send(address: str, rate: int, seconds: float) -> tuple[int, float]:
    """Send one line per datagram at a steady rate; return how many, and the rate that was reached."""
    host, _, port = address.rpartition(":")
    line = body(1)
    assert len(line) == LINE_LENGTH + 1
    total = int(rate * seconds)
    sent = 0
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.connect((host, int(port)))
        start = time.perf_counter()
        while sent < total:
            due = min(int((time.perf_counter() - start) * rate) + 1, total)
            while sent < due:
                sender.send(line)
                sent += 1
            time.sleep(0.0005)
        return sent, sent / (time.perf_counter() - start)
