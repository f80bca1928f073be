"""Parts of a picture that keys kill, freeze and start again."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Mapping, Sequence

from testing.servers import Server, ServerError

SPAN = 3.0  # seconds that a rate is taken over


class Rate:
    """The growth rate of a number."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, number: int) -> float:
        """Add the current number, and return its growth per second."""
        now = time.monotonic()
        self._seen.append((now, number))
        while self._seen[0][0] < now - SPAN:
            self._seen.popleft()
        begin, first = self._seen[0]
        return (number - first) / (now - begin) if now > begin else 0.0


class Parts:
    """The parts, in the order of their keys.

    :ivar states: ``"up"``, ``"killed"``, ``"frozen"`` or ``"starting"``, by name.
    :ivar chosen: the one that keys are for.
    :ivar events: what has happened, each with its time.
    """

    def __init__(self, servers: Mapping[str, Server], names: Sequence[str]) -> None:
        self._servers = servers
        self.states = dict.fromkeys(names, "up")
        self.chosen = names[0]
        self.events: list[str] = []
        self._work: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def press(self, key: str) -> None:
        """Choose a part by its number, or have something done with it."""
        names = list(self.states)
        if key.isdigit() and 1 <= int(key) <= len(names):
            self.chosen = names[int(key) - 1]
        elif key in "kfr":
            self._work.put((key, self.chosen))

    def act(self) -> None:
        """Wait for a key, and do what it says."""
        key, name = self._work.get()
        part, state = self._servers[name], self.states[name]
        began = time.strftime("%H:%M:%S")
        try:
            if key == "k" and state != "killed":
                part.kill()
                self.states[name] = "killed"
                self.events.append(f"{began} {name} was killed")
            elif key == "f" and state == "up":
                part.pause()
                self.states[name] = "frozen"
                self.events.append(f"{began} {name} was frozen")
            elif key == "r" and state == "frozen":
                part.resume()
                self.states[name] = "up"
                self.events.append(f"{began} {name} was resumed")
            elif key == "r":
                self.states[name] = "starting"
                part.restart()
                self.states[name] = "up"
                self.events.append(f"{began} {name} was started")
        except (ServerError, OSError) as error:
            self.states[name] = "killed"
            self.events.append(f"{began} {name}: {str(error).splitlines()[0]}")

    def look(self) -> None:
        """Notice parts that have exited by themselves."""
        for name, part in self._servers.items():
            if self.states[name] in ("up", "frozen") and not part.is_running:
                self.states[name] = "killed"
                self.events.append(f"{time.strftime('%H:%M:%S')} {name} has exited")
