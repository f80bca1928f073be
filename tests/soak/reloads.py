"""Reloads under load: what clients, and what servers see of them.

``python -m tests.soak.reloads --count 100 [--seed N] [--queue buffer|journal]``. Some clients write all the time
through one relay, each to a database of its own and one write after the other, while its configuration is changed again
and again: backends are added, removed, moved to another server, renamed and swapped, they get other credentials and
limits, and the listener another consistency. Some of the files are broken. The servers are ours: they note what they
get, in order.

What is checked:

- Every write is answered 204.
- Each server gets the writes of a client in order; what it gets a second time does not count.
- A write that was acknowledged is on the server of each output that was configured all the while: on the one at which
  the output was then, or one to which it has moved since. Of an output that was removed only a buffer owes anything.
- Each reload says what it has changed, and a broken file is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs

from influxrelay.core.text import count
from testing.servers import LOOPBACK, Relay, free_port
from tests.soak.reload_clients import PATIENCE, Recorder, Told, Writer

CLIENTS = 8
SERVERS = 6
BROKEN = ("[", '[[http]]\nbind-addr = "nowhere"\n', "", 'unknown = "key"\n')


# -- the configurations


@attrs.define(eq=False)
class Output:
    """A backend as the operator sees it, through all its changes.

    :ivar servers: where it is, and where it was; with the time from which on it was certainly there.
    :ivar began: when it was certainly configured.
    :ivar ended: when it may have been removed.
    """

    name: str
    servers: list[tuple[float, Recorder]]
    settings: dict[str, Any] = attrs.field(factory=dict)
    began: float = 0.0
    ended: float = float("inf")


class Load:
    """A relay, its servers, its clients, and the operator who cannot leave its configuration alone."""

    def __init__(self, directory: Path, queue: str, seed: int) -> None:
        self._rng = random.Random(seed)
        self._queue = queue
        self._directory = directory
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._servers = [Recorder(random.Random(number)) for number in range(SERVERS)]
        for server in self._servers:
            asyncio.run_coroutine_threadsafe(server.listen(), self._loop).result(PATIENCE)
        self._outputs = [Output(f"output{number}", [(0.0, self._servers[number])]) for number in range(2)]
        self._all_outputs = list(self._outputs)
        self._names = 2
        self._listener = {"consistency": "one", "max-body-size": 1000000}
        self._socket = str(directory / "admin.sock")
        self._port = free_port()
        self._relay = Relay(directory / "relay", self._text(), self._port)
        self.writers = [Writer(number, self._port) for number in range(CLIENTS)]
        self.problems: list[str] = []
        self.slowest = 0.0

    def _text(self) -> str:
        lines = [
            f'admin-socket = "{self._socket}"',
            "[[http]]",
            'name = "main"',
            f'bind-addr = "{LOOPBACK}:{self._port}"',
            *(f"{key} = {json.dumps(value)}" for key, value in self._listener.items()),
        ]
        if self._queue == "journal":
            lines.append(f'journal = "{self._directory / "journal"}"')
        for output in self._outputs:
            lines += ["[[http.output]]", f'name = "{output.name}"']
            lines.append(f'location = "http://{LOOPBACK}:{output.servers[-1][1].port}/write"')
            lines += ['timeout = "30s"', "buffer-size-mb = 64"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in output.settings.items()]
        return "\n".join([*lines, ""])

    # -- the operator

    def run(self, count: int, broken: int) -> None:
        """Reload so many times under load."""
        self._relay.start()
        try:
            for writer in self.writers:
                writer.start()
            bad = set(self._rng.sample(range(count), min(broken, count)))
            for turn in range(count):
                if turn in bad:
                    self._break()
                self._change()
                time.sleep(self._rng.choice((0.0, 0.02, 0.1)))
            for writer in self.writers:
                writer.stop()
            for writer in self.writers:
                writer.join(PATIENCE)
            self._wait_until_drained()
        finally:
            self._relay.stop()
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._check()

    def _ask(self, command: str) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(PATIENCE)
            admin.connect(self._socket)
            admin.sendall(json.dumps({"command": command}).encode() + b"\n")
            with admin.makefile() as lines:
                answer: dict[str, Any] = json.loads(list(lines)[-1])
        return answer

    def _break(self) -> None:
        """Reload a file with a mistake."""
        self._relay.config.write_text(self._rng.choice(BROKEN))
        answer = self._ask("reload")
        if "error" not in answer:
            self.problems.append(f"a broken file was taken: {answer}")

    def _change(self) -> None:
        """Change something, and let it hold."""
        before = [(each, each.servers[-1]) for each in self._outputs]
        changes = [self._add, self._remove, self._move, self._rename, self._swap, self._set, self._reconsider]
        expected = self._rng.choice(changes)()
        self._relay.config.write_text(self._text())
        asked = time.monotonic()
        for output, _ in before:
            if output not in self._outputs:
                output.ended = asked
        if self._rng.random() < 0.2:
            os.kill(self._relay.pid, signal.SIGHUP)
            time.sleep(0.05)
        answer = self._ask("reload")
        done = time.monotonic()
        self.slowest = max(self.slowest, done - asked)
        if "error" in answer:
            self.problems.append(f"refused: {answer['error']}")
        elif expected and not answer["result"]["changes"] and done - asked < 0.05:
            self.problems.append("nothing is said to have changed")
        for output in self._outputs:
            if output not in [each for each, _ in before]:
                output.began = done
            when, server = output.servers[-1]
            if (output, (when, server)) not in before:
                output.servers[-1] = (done, server)

    def _free(self) -> list[Recorder]:
        taken = [output.servers[-1][1] for output in self._outputs]
        return [server for server in self._servers if server not in taken]

    def _add(self) -> bool:
        free = self._free()
        if len(self._outputs) > 3:
            return self._remove()
        self._names += 1
        output = Output(f"output{self._names}", [(0.0, self._rng.choice(free))])
        self._outputs.insert(self._rng.randint(0, len(self._outputs)), output)
        self._all_outputs.append(output)
        return True

    def _remove(self) -> bool:
        if len(self._outputs) < 2:
            return self._add()
        self._outputs.remove(self._rng.choice(self._outputs))
        return True

    def _move(self) -> bool:
        output = self._rng.choice(self._outputs)
        output.servers.append((0.0, self._rng.choice(self._free())))
        return True

    def _rename(self) -> bool:
        self._names += 1
        self._rng.choice(self._outputs).name = f"output{self._names}"
        return True

    def _swap(self) -> bool:
        """Let two outputs exchange their names, and turn their order around."""
        if len(self._outputs) > 1:
            one, two = self._rng.sample(self._outputs, 2)
            one.name, two.name = two.name, one.name
        self._outputs.reverse()
        return len(self._outputs) > 1

    def _set(self) -> bool:
        """Give an output other credentials and limits."""
        output, rng = self._rng.choice(self._outputs), self._rng
        self._names += 1
        user, password = "user", f"password{self._names}"
        for server in self._servers:
            server.known.add("Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
        output.settings = {
            "username": user,
            "password": password,
            "max-batch-kb": rng.choice((1, 8, 512)),
            "gzip": False,
            "max-delay-interval": rng.choice(("1s", "10s")),
        }
        return True

    def _reconsider(self) -> bool:
        """Give the listener another consistency."""
        before = dict(self._listener)
        self._listener["consistency"] = self._rng.choice(("any", "one", "quorum", "all"))
        self._listener["max-body-size"] = self._rng.choice((100000, 1000000))
        return self._listener != before

    # -- what has become of it

    def _wait_until_drained(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            rows = self._ask("queues")["result"]["queues"]
            if not any(row["writes"] for row in rows):
                return
            time.sleep(0.05)
        self.problems.append("the queues are not empty")

    def _check(self) -> None:
        for writer in self.writers:
            self.problems += [f"client {writer.number}: {failure}" for failure in writer.failures[:5]]
            if not writer.told:
                self.problems.append(f"client {writer.number} has written nothing")
        for number, server in enumerate(self._servers):
            if server.strangers:
                self.problems.append(f"server {number} got {server.strangers} requests from strangers")
            for client, numbers in server.seen.items():
                first = list(dict.fromkeys(numbers))
                if first != sorted(first):
                    late = next(b for a, b in pairwise(first) if b < a)
                    self.problems.append(f"server {number} got write {late} of client {client} out of order")
        for output in self._all_outputs:
            if output.ended == float("inf") or self._queue == "buffer":
                self._check_output(output)

    def _check_output(self, output: Output) -> None:
        """Check that what was acknowledged while an output was configured is where the output was, or is."""
        for writer in self.writers:
            missing = []
            seen = [(when, set(server.seen.get(writer.number, ()))) for when, server in output.servers]
            for told in writer.told:
                if told.began < output.began or told.ended > output.ended:
                    continue
                left = [place for position, (when, place) in enumerate(seen) if self._may_be_at(seen, position, told)]
                if not any(told.number in place for place in left):
                    missing.append(told.number)
            if missing:
                self.problems.append(f"{output.name} misses {len(missing)} of client {writer.number}: {missing[:5]}")

    @staticmethod
    def _may_be_at(seen: list[tuple[float, set[int]]], position: int, told: Told) -> bool:
        """Tell whether a write may have gone to where an output was then: it had not left for good before the write."""
        left_at = seen[position + 1][0] if position + 1 < len(seen) else float("inf")
        return told.began <= left_at

    @property
    def writes(self) -> int:
        """How many writes were acknowledged."""
        return sum(len(writer.told) for writer in self.writers)

    @property
    def failures(self) -> int:
        """How many writes were not."""
        return sum(len(writer.failures) for writer in self.writers)


def main(arguments: list[str]) -> int:
    """Run the command line; return 0 if all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.reloads", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--count", type=int, default=100, help="reloads for each kind of queue")
    parser.add_argument("--broken", type=int, default=10, help="broken files among them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--queue", choices=("buffer", "journal"), action="append")
    options = parser.parse_args(arguments)
    problems = 0
    for queue in options.queue or ("buffer", "journal"):
        directory = Path(tempfile.mkdtemp(prefix="influxrelay-reloads-"))
        try:
            load = Load(directory, queue, options.seed)
            load.run(options.count, options.broken)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        longest = max(writer.longest for writer in load.writers)
        sys.stdout.write(
            f"{queue}: {options.count} reloads, {load.writes} writes of {CLIENTS} clients, {load.failures} failed;"
            f" the longest write took {longest * 1000:.0f} ms, the longest reload {load.slowest * 1000:.0f} ms;"
            f" {count(len(load.problems), 'problem')}\n"
        )
        for problem in load.problems:
            sys.stdout.write(f"  {problem}\n")
        problems += len(load.problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
