"""The simulation of relays with queues and reloads, in which backends take only some lines.

``python -m tests.simulation.filter SEED`` replays one schedule with a trace, ``--count N`` runs N without one. Filters
change with reloads and restarts, too: what was taken before that need not get to the backend if either filter leaves
another part of it. Load balancers ask all the time whether a backend is in sync, as in :mod:`tests.simulation.health`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from influxrelay.config.settings import FilterConfig, HTTPOutputConfig
from influxrelay.listeners.output_settings import make_filter
from tests.simulation.health import QueueWorld
from tests.simulation.queue_server import Server, part_of
from tests.simulation.reload import ReloadWorld
from tests.simulation.schedule import main

EXPRESSIONS = ("", "^(bad|p0|p1)$", "^(bad|p[123])$", "^(bad|p3)$", "^bad$")  # what is malformed is for everyone


class FilterWorld(QueueWorld, ReloadWorld):
    """One schedule with filters."""

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(seed, trace)
        self.reloads["filter"] = 0
        self._expressions: dict[int, str] = {}
        self._next: dict[int, str] = {}
        choices = random.Random(f"filter {seed}")
        for server in self.servers:
            server.filters.clear()
            self._next[server.number] = choices.choice(EXPRESSIONS)
            self._filter(server)

    def filters_of(self, server: Server) -> tuple[FilterConfig, ...]:
        """Return what it has, or will have after the change that is prepared."""
        return _settings({**self._expressions, **self._next}[server.number])

    def changed(self, rng: random.Random, change: str) -> dict[str, Server]:
        """Return other outputs, and prepare another filter."""
        self._next.clear()
        outputs = super().changed(rng, change)
        if change == "filter":
            server = self._choices.choice(list(outputs.values()))
            self._next[server.number] = self._choices.choice(EXPRESSIONS)
        return outputs

    def configure(self, outputs: dict[str, Server]) -> None:
        """Let another filter hold, too."""
        super().configure(outputs)
        for number in list(self._next):
            self._filter(self.servers[number])

    def _filter(self, server: Server) -> None:
        number = server.number
        self._expressions[number] = self._next.pop(number)
        server.filter = make_filter(HTTPOutputConfig("", "", "", "", filters=_settings(self._expressions[number])))
        server.filters.append(server.filter)
        for story in self.stories.values():
            if story.parts.get(number, b"") != part_of(story.write.body, server.filter):
                story.excused.add(number)

    def _start_another(self) -> None:
        if self._choices.random() < 0.3:
            self.outputs = self.changed(self._choices, "filter")
            for number in list(self._next):
                self._filter(self.servers[number])
        super()._start_another()


def _settings(expression: str) -> tuple[FilterConfig, ...]:
    return (FilterConfig(("any",), expression),) if expression else ()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], FilterWorld))
