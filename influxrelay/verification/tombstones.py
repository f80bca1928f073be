"""What a backend still has although it is deleted: it has missed a DELETE or DROP that the others have executed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from influxrelay.core.text import count
from influxrelay.influxql.ast import Binary, Expression, Parentheses, Reference, Statement
from influxrelay.influxql.ast import Measurement as Named
from influxrelay.influxql.parser import parse
from influxrelay.influxql.unparsing import Writer
from influxrelay.operations.views import Request
from influxrelay.verification.points import Points, read_points
from influxrelay.verification.server import Server, of_measurement
from influxrelay.verification.statements import Measurement, Window


@attrs.frozen
class Missed:
    """A change that removes something, and that a backend has not executed.

    :ivar id: of the dead letter that it is.
    :ivar when: it was accepted, in nanoseconds since 1970. What is older was to be removed.
    :ivar statement: None if it cannot be read: then it may have been about anything in its databases.
    """

    id: str
    when: int
    databases: tuple[str, ...]
    text: str
    statement: Statement | None

    @classmethod
    def read(cls, shown: Mapping[str, Any]) -> Missed:
        """Return what the relay has told."""
        try:
            (statement,) = parse(shown["statement"])
        except ValueError:
            statement = None
        return cls(shown["id"], shown["when"], tuple(shown["databases"]), shown["statement"], statement)

    def drops(self, database: str, policy: str = "") -> bool:
        """Say whether it drops a database or a retention policy as a whole."""
        kind, name = ("", "") if self.statement is None else (self.statement.kind, self.statement.name)
        if database not in self.databases:
            return False
        return kind == "DROP DATABASE" or (kind == "DROP RETENTION POLICY" and name == policy)

    def concerns(self, measurement: Measurement) -> bool:
        """Say whether it removes points of a measurement."""
        statement = self.statement
        if measurement.database not in self.databases:
            return False
        if statement is None or self.drops(measurement.database, measurement.policy):
            return True
        if statement.kind == "DROP RETENTION POLICY":
            return False
        if statement.kind == "DROP MEASUREMENT":
            return statement.name == measurement.name
        named = [each for each in statement.sources if isinstance(each, Named)]
        return not named or any(_is_meant(each, measurement.name) for each in named)

    def condition(self) -> str:
        """Return what stands behind its WHERE; empty for nothing."""
        if self.statement is None or self.statement.condition is None:
            return ""
        return Writer(self.when).expression(_of_tags(self.statement.condition))


@attrs.define
class Tombstones:
    """What a backend has missed.

    :ivar missed: as far as is known; it may miss more meanwhile.
    :ivar held: how many points are not copied because of each.
    """

    missed: Sequence[Missed] = ()
    held: Counter[Missed] = attrs.field(factory=Counter, eq=False)

    def hold(self, server: Server, measurement: Measurement, window: Window, points: Points) -> Points:
        """Return the points without those that were to be removed, as far as that can be told.

        What is newer than the DELETE, by its time, was written after it.

        :param server: that has the points; it is asked what the condition of a DELETE means.
        """
        for each in self.missed:
            until = min(window.until, each.when + 1)
            if points and until > window.since and each.concerns(measurement):
                deleted = _deleted(each, server, measurement, Window(window.since, until), points)
                points = {tags: dict(times) for tags, times in points.items()}
                for tags, times in deleted.items():
                    for time in times:
                        if points.get(tags, {}).pop(time, None) is not None:
                            self.held[each] += 1
                points = {tags: times for tags, times in points.items() if times}
        return points

    def drops(self, database: str, policy: str) -> Missed | None:
        """Return what was to drop a database or a retention policy."""
        return next((each for each in self.missed if each.drops(database, policy)), None)

    def notes(self, backend: str) -> Iterator[str]:
        """Yield what was not copied from a backend."""
        for each, points in self.held.items():
            yield f"{count(points, 'point')} of {backend} not copied: {deleted_by(backend, each)}"


def read_missed(ask: Callable[[Request], dict[str, Any]], listener: str) -> dict[str, list[Missed]]:
    """Return which changes that remove something the backends of a listener have missed.

    :raises Refused: that is not known.
    """
    found: dict[str, list[Missed]] = {}
    for each in ask(Request("repair missed", listener))["missed"]:
        found.setdefault(each["backend"], []).append(Missed.read(each))
    return found


def deleted_by(backend: str, missed: Missed) -> str:
    """Say why a backend has what was deleted, and what to do."""
    return (
        f"{backend} has missed {missed.text!r}; if that is to hold, execute it there with: influxrelay dead-letters"
        f" replay {missed.id}, and repair {backend}"
    )


def _deleted(missed: Missed, server: Server, measurement: Measurement, window: Window, points: Points) -> Points:
    condition = missed.condition()
    if not condition:
        return {
            tags: {time: {} for time in times if window.since <= time < window.until} for tags, times in points.items()
        }
    statement = f"SELECT *::field FROM {measurement.quoted} WHERE ({condition}) AND {window.condition} GROUP BY *"  # noqa: S608 (names are quoted)
    return read_points(of_measurement(measurement.name, server.ask(statement)))


def _is_meant(source: Named, name: str) -> bool:
    if source.regex is None:
        return source.name == name
    try:
        return re.search(source.regex.pattern, name) is not None
    except re.error:
        return True  # InfluxDB's own expressions say more than Python's


def _of_tags(expression: Expression) -> Expression:
    """Return a condition in which each name is a tag's: a field of the same name would come first."""
    if isinstance(expression, Binary):
        return attrs.evolve(expression, left=_of_tags(expression.left), right=_of_tags(expression.right))
    if isinstance(expression, Parentheses):
        return Parentheses(_of_tags(expression.inner))
    if isinstance(expression, Reference) and expression.name != "time" and not expression.type:
        return Reference(expression.name, "tag")
    return expression
