"""One cell of the results: a contender in a scenario, once."""

from __future__ import annotations

import os
import socket
import time

from bench import wrk
from bench.backends import Backends, UDPSinks
from bench.contenders import Contender
from bench.processes import Usage
from bench.scenarios import LINE_LENGTH, Scenario, body

Figures = dict[str, float]  # by metric; the report knows them

COMMON_RATE = 40_000  # lines per second over UDP: all that is worth comparing takes them without loss
RATES = (10_000, 20_000, COMMON_RATE, 60_000, 80_000, 120_000, 160_000)
QUICK_RATES = (COMMON_RATE,)
_TRIES = 2  # at each rate: a hiccup of the machine is not the relay's limit
_ENOUGH = 0.95  # of a rate; if the sender does not reach it, the machine has no more to give


def over_http(
    contender: Contender, scenario: Scenario, backends: Backends, seconds: float
) -> tuple[Figures, list[str]]:
    """Return the figures, and what went wrong."""
    backends.reset()
    with contender.run(scenario, backends) as session:
        url = contender.url(scenario, backends)
        before, start = Usage(), time.monotonic()
        load = wrk.run(scenario, url, seconds, backends.testbed.directory)
        after, wall = Usage(), time.monotonic() - start
        cpu = after.cpu(session) - before.cpu(session)
        busy = cpu / wall
        received = _settled(backends, scenario, load.taken * scenario.lines, contender.copies)
        if contender.copies > 1:  # what one backend still had to receive is the relay's work too
            cpu = Usage().cpu(session) - before.cpu(session)
    troubles = [f"{name}: {count}" for name, count in load.errors.items()]
    # Each client may have one request under way when wrk stops.
    least, most = load.taken * scenario.lines, (load.requests + scenario.clients) * scenario.lines
    troubles += [
        f"{lines:,} lines reached a backend, of {least:,} that were acknowledged"
        for lines in received
        if not least <= lines <= most
    ]
    micro = 1e6 / max(load.taken, 1)
    figures = {
        "writes/s": load.taken / load.duration,
        "lines/s": load.taken * scenario.lines / load.duration,
        "p50": load.p50 * 1e3,
        "p99": load.p99 * 1e3,
        "cpu": cpu * micro,
        "rss": after.resident(session) / 2**20,
        "busy": busy,
        "client cpu": load.cpu * micro,
        "backends cpu": (after.cpu(*backends.sessions) - before.cpu(*backends.sessions)) * micro,
        "others": after.others_since(before, [session, *backends.sessions, os.getsid(0)]) / wall,
    }
    return figures, troubles


def over_udp(
    contender: Contender, scenario: Scenario, backends: Backends, seconds: float, *, rates: tuple[int, ...]
) -> tuple[Figures, list[str]]:
    """Send faster and faster, until lines are lost; return the figures, and what went wrong."""
    assert isinstance(backends, UDPSinks)
    figures: Figures = {}
    troubles: list[str] = []
    overflows = backends.overflows()
    with contender.run(scenario, backends) as session:
        for rate in rates:
            for _ in range(_TRIES):
                backends.reset()
                before = Usage().cpu(session)
                sent, reached = _send(contender.address, rate, seconds)
                received = min(_settled(backends, scenario, sent, contender.copies))
                cpu = Usage().cpu(session) - before
                if received >= sent:
                    break
            if received < sent:
                figures |= {"udp lossy rate": reached, "udp loss": 100 * (1 - received / sent)}
                break
            for_cpu = received / max(cpu, 0.01)
            figures |= {"udp rate": reached, "udp lines/cpu": for_cpu, f"udp lines/cpu at {rate}": for_cpu}
            if reached < rate * _ENOUGH:
                break
    if backends.overflows() > overflows:
        troubles.append("the sinks were too slow: some of the loss is theirs")
    return figures, troubles


def _settled(backends: Backends, scenario: Scenario, expected: int, copies: int) -> list[int]:
    """Wait until the first backends have what they should, or receive nothing for a second; return what they have."""
    received, since = backends.received(scenario)[:copies], time.monotonic()
    while min(received) < expected and time.monotonic() - since < 1:
        time.sleep(0.1)
        now = backends.received(scenario)[:copies]
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
