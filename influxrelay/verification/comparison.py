"""Comparing servers: the schema, then windows by aggregates that the servers compute, then points."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from random import Random

import attrs

from influxrelay.core.errors import InfluxRelayError
from influxrelay.verification import statements
from influxrelay.verification.connection import at_once
from influxrelay.verification.measurement import MeasurementComparison
from influxrelay.verification.progress import Memory
from influxrelay.verification.schema import (
    Schema,
    compare_schemas,
    read_fields,
    read_schemas,
)
from influxrelay.verification.server import Server
from influxrelay.verification.setting import Mender, Outcome, Setting
from influxrelay.verification.statements import Measurement, Place, Window
from influxrelay.verification.windows import shard_windows


class NothingToCompare(InfluxRelayError):
    """There is nothing of what is to be compared; ``str()`` is one line for the operator."""


@attrs.frozen
class Selection:
    """What is compared; an empty name is for all."""

    database: str = ""
    policy: str = ""
    measurement: str = ""
    bounds: Window = statements.EVERYTHING


@attrs.define
class Comparison:
    """Compares servers.

    :param servers: at least two.
    :param progress: is called with how many windows are done, of how many, and with what was found so far.
    :param memory: of what an interrupted comparison has compared already.
    :param mender: who does something about what differs between two servers. Then the newest windows of all
        measurements come first.
    :param outcome: to which what is found is added.
    """

    servers: Sequence[Server]
    selection: Selection
    progress: Callable[[float, int, Outcome], None] = lambda done, total, outcome: None  # noqa: ARG005
    random: Random = attrs.field(factory=Random)
    sleep: Callable[[float], None] = time.sleep
    now: int = attrs.field(factory=time.time_ns)
    memory: Memory = attrs.field(factory=Memory)
    mender: Mender | None = None
    outcome: Outcome = attrs.field(factory=Outcome)
    _done: int = attrs.field(default=0, init=False)
    _total: int = attrs.field(default=0, init=False)

    def run(self) -> Outcome:
        """Compare everything.

        :raises Unanswered: a server does not answer.
        :raises NothingToCompare: no server has it.
        """
        wanted = self.selection
        schemas = read_schemas(self.servers, self.now, wanted.database, wanted.policy)
        places = sorted(set().union(*(each.places for each in schemas.values())))
        if (wanted.database or wanted.policy) and not places:
            policy = f"retention policy {wanted.policy}" if wanted.policy else ""
            database = f"database {wanted.database}" if wanted.database else ""
            raise NothingToCompare(f"no backend has a {' in a '.join(filter(None, (policy, database)))}")
        self.outcome.differences += compare_schemas(schemas)
        self.outcome.not_compared += (why for each in schemas.values() for why in each.unmapped.values())
        fields = {place: self._fields(place, schemas) for place in places}
        measurements = [
            Measurement(*place, name)
            for place in places
            for name in sorted(set().union(*fields[place].values()))
            if wanted.measurement in ("", name)
        ]
        if wanted.measurement and not measurements:
            raise NothingToCompare(f"no backend has a measurement {wanted.measurement}")
        setting = Setting(self.outcome, self.memory, self.random, self.sleep, self.now, self.mender, self.report)
        work: list[tuple[MeasurementComparison, list[Window]]] = []
        for measurement in measurements:
            place = (measurement.database, measurement.policy)
            servers = [each for each in self.servers if place in schemas[each.name].places]
            if len(servers) > 1:
                groups = [group for each in servers for group in schemas[each.name].groups.get(place, ())]
                windows = shard_windows(groups, wanted.bounds)
                types = {name: each.get(measurement.name, {}) for name, each in fields[place].items()}
                work.append((MeasurementComparison(setting, servers, measurement, types), windows))
        if self.outcome.not_compared and not work and not self.outcome.differences:
            raise NothingToCompare("; ".join(self.outcome.not_compared))
        self._compare(work)
        return self.outcome

    def _compare(self, work: Sequence[tuple[MeasurementComparison, list[Window]]]) -> None:
        self._total = sum(len(windows) for _, windows in work)
        if self.mender is None:
            for compared, windows in work:
                compared.compare_types(windows)
                for window in windows:
                    compared.compare(window)
                    self._done += 1
                    self.report()
                compared.finish()
            return
        steps = [(window, compared) for compared, windows in work for window in windows]
        steps.sort(key=lambda step: step[0].since, reverse=True)
        for window, compared in steps:
            compared.compare_types([window])
            compared.compare(window)
            self._done += 1
            self.report()
        for compared, _ in work:
            compared.finish()

    def report(self, part: float = 0.0) -> None:
        """Tell how far it is.

        :param part: of the window at hand that is done.
        """
        self.progress(self._done + part, self._total, self.outcome)

    def _fields(self, place: Place, schemas: Mapping[str, Schema]) -> dict[str, dict[str, dict[str, set[str]]]]:
        having = [each for each in self.servers if place in schemas[each.name].places]
        asked = at_once(having, lambda each: each.ask(statements.field_keys(*place)))
        return {each.name: read_fields(keys) for each, keys in asked}
