"""What an operator says that a backend's answers mean: the array ``answers`` of an output or a listener."""

from __future__ import annotations

import re
from collections.abc import Sequence

from influxrelay.config.document import Place, Table, read, read_each
from influxrelay.config.readers import NotAllowed, expression, word
from influxrelay.config.schema import Keys
from influxrelay.config.settings import AnswerConfig

_STATUSES = 'a status from 300 to 599, a class ("3xx", "4xx", "5xx"), or an array of these'


def statuses(value: object) -> tuple[range, ...] | None:
    """Read which statuses a rule matches; None is any."""
    if value == "":
        return None
    given = value if isinstance(value, list) else [value]
    if not given:
        raise NotAllowed(_STATUSES)
    return tuple(map(_range, given))


def _range(value: object) -> range:
    if type(value) is int and 300 <= value <= 599:
        return range(value, value + 1)
    if isinstance(value, str) and re.fullmatch("[345][xX][xX]", value):
        first = 100 * int(value[0])
        return range(first, first + 100)
    raise NotAllowed(_STATUSES)


def text(value: object) -> str | None:
    """Read what is searched in a body, in upper or lower case."""
    if isinstance(value, str) and value:
        expression(f"(?i){value}")
    return expression(value)


ANSWER: Keys = {
    "status": statuses,
    "text": text,
    "means": word("retry", "dead-letter", "stale", "hold"),
}


def read_answers(place: Place, tables: Sequence[Table]) -> tuple[AnswerConfig, ...]:
    """Read the rules, in their order."""
    return read_each(place, tables, _answer)


def _answer(place: Place, table: Table) -> AnswerConfig:
    fields = read(place, table, ANSWER, "means")
    if "means" not in fields:
        raise (place / "means").error('missing; allowed: "retry", "dead-letter", "stale" or "hold"')
    if not fields.keys() & {"status", "text"}:
        raise place.error("it matches every answer; add a status, a text, or both")
    return AnswerConfig(**fields)
