"""What ``make picture OPTIONS=--shards`` shows: two shards, behind one relay and behind one before other relays."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

import attrs

from testing.servers import LOOPBACK, ServerError, send
from testing.shard_picture import DATABASE, FRONTS, PAIRS, SHARDS, Client, ShardPicture
from tools.picture_parts import Parts, Rate
from tools.screen import LOOK

KEYS = "KEYS  1-8 select  k kill -9  f freeze (SIGSTOP)  r restart or resume  q quit"
PAUSE = 0.05  # seconds between two writes of a client
JUST_NOW = 5.0  # seconds
SHOWN_EVENTS = 6
WHAT = {"servers": "its shards are servers", "relays": "its shards are the relays pair1 and pair2"}


@attrs.define
class Front:
    """What clients write through a relay with shards, and read back.

    :ivar failing: whether a write has failed in the last seconds.
    :ivar counted: what a query over both shards has found, or why it was refused.
    """

    name: str
    written: int
    rate: float
    failed: int
    failing: bool
    counted: str


@attrs.define
class Facts:
    """The state of all parts.

    :ivar states: ``"up"``, ``"killed"``, ``"frozen"`` or ``"starting"``, by name.
    :ivar lags: what a server lacks, by its name: each message with the relay that tells; empty if it has everything.
    """

    clock: str
    states: dict[str, str]
    fronts: list[Front]
    lags: dict[str, list[str]]
    events: Sequence[str] = ()
    chosen: str = ""


def find_trouble(facts: Facts) -> list[str]:
    """Return what is wrong."""
    trouble = [f"{name} is {state}" for name, state in facts.states.items() if state != "up"]
    trouble += [f"{name} is behind" for name, lags in facts.lags.items() if lags and facts.states[name] == "up"]
    return trouble + [f"writes through {each.name} fail" for each in facts.fronts if each.failing]


def table(facts: Facts) -> list[str]:
    """Return the lines."""
    trouble = find_trouble(facts)
    verdict = f"PROBLEM: {'; '.join(trouble)}" if trouble else "OK: every write is acknowledged, no server is behind"
    lines = [f"{facts.clock}  {verdict}", ""]
    for each in facts.fronts:
        lines.append(f"writes through {each.name:8} {each.rate:4.0f}/s, {each.written} in all, {each.failed} failed")
        lines.append(f"{'':22}  points by a query over both shards: {each.counted}")
    lines.append("")
    for number, (name, state) in enumerate(facts.states.items(), 1):
        mark = ">" if name == facts.chosen else " "
        shown = state if state == "up" else state.upper()
        lines.append(f"{mark} {number} {name:8} {shown:9} {_describe(name, facts)}")
    return [*lines, "", *facts.events[-SHOWN_EVENTS:]]


def _describe(name: str, facts: Facts) -> str:
    if name in WHAT:
        return WHAT[name]
    for shard, pair in PAIRS.items():
        if name == pair:
            return f"writes to {' and '.join(SHARDS[shard])}"
        if name in SHARDS[shard]:
            return f"of shard {shard}, " + ("; ".join(facts.lags[name]) or "has everything")
    raise ValueError(name)


class ShardWatch:
    """Writes through both relays, carries out keys, and collects the state of all parts."""

    def __init__(self, picture: ShardPicture) -> None:
        self._picture = picture
        self.parts = Parts(picture.parts, (*FRONTS, *PAIRS.values(), *picture.servers))
        self._over = threading.Event()
        self._clients = {front: Client(front, picture.relays[front].url, PAUSE) for front in FRONTS}
        self._rates = {front: Rate() for front in FRONTS}
        self._failed: dict[str, tuple[int, float]] = dict.fromkeys(FRONTS, (0, -JUST_NOW))
        self._counted = dict.fromkeys(FRONTS, "-")
        self._lags: dict[tuple[str, str], str] = {}

    def begin(self) -> None:
        """Write, collect and work in threads until :meth:`stop`."""
        for client in self._clients.values():
            client.start()
        for shard, pair in PAIRS.items():
            for server in SHARDS[shard]:
                for relay in ("servers", pair):
                    self._repeat(2 * LOOK, self._ask_lag, relay, server)
        for front in FRONTS:
            self._repeat(2 * LOOK, self._count, front)
        self._repeat(0.0, self.parts.act)

    def stop(self) -> None:
        """End the threads."""
        self._over.set()
        for client in self._clients.values():
            client.stop()

    def _repeat(self, pause: float, function: Callable[..., None], *arguments: str) -> None:
        def run() -> None:
            while not self._over.wait(pause):
                function(*arguments)

        threading.Thread(target=run, daemon=True).start()

    def _ask_lag(self, relay: str, server: str) -> None:
        url = f"http://{LOOPBACK}:{self._picture.admin[relay]}/health/backends/{server}"
        try:
            status, body = send("GET", url, timeout=3)
            told = "" if status == 200 else str(json.loads(body)["message"])
        except (OSError, ValueError, KeyError):
            told = ""  # a relay that does not answer is seen otherwise
        self._lags[relay, server] = told

    def _count(self, front: str) -> None:
        q = urlencode({"db": DATABASE, "q": f"SELECT count(n) FROM {front}"})  # noqa: S608 (InfluxQL, and ours)
        try:
            status, body = send("GET", f"{self._picture.relays[front].url}/query?{q}", timeout=5)
            told = json.loads(body)
            if status == 200:
                self._counted[front] = str(told["results"][0]["series"][0]["values"][0][1])
            else:
                self._counted[front] = f"{status}: {told['error']}"
        except (OSError, ValueError, LookupError, ServerError) as error:
            self._counted[front] = f"no answer ({type(error).__name__})"

    def facts(self) -> Facts:
        """Return the state of all parts."""
        self.parts.look()
        now = time.monotonic()
        fronts = []
        for name, client in self._clients.items():
            failed = len(client.failed)
            if failed > self._failed[name][0]:
                self._failed[name] = failed, now
            failing = self._failed[name][1] > now - JUST_NOW
            written = len(client.acknowledged)
            fronts.append(Front(name, written, self._rates[name].of(written), failed, failing, self._counted[name]))
        lags: dict[str, list[str]] = {name: [] for name in self._picture.servers}
        for (relay, server), told in list(self._lags.items()):
            if told:
                lags[server].append(f"{relay}: {told}")
        return Facts(
            time.strftime("%H:%M:%S"),
            dict(self.parts.states),
            fronts,
            lags,
            list(self.parts.events),
            self.parts.chosen,
        )

    def press(self, key: str) -> None:
        """Carry out a key."""
        self.parts.press(key)

    def fitted(self, width: int, height: int) -> list[str]:
        """Return the lines for a terminal of this size."""
        lines = [line[: width - 1] for line in (KEYS, *table(self.facts()))]
        return lines[: max(height, 1)]

    def told(self) -> tuple[list[str], list[str]]:
        """Return all lines, and what is wrong."""
        facts = self.facts()
        return table(facts), find_trouble(facts)
