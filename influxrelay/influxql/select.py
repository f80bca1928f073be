"""SELECT and the clauses that other statements have, too (``influxdata/influxql``, ``parser.go``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from influxrelay.influxql.ast import (
    Binary,
    Bounds,
    Call,
    Expression,
    Field,
    Literal,
    Measurement,
    Reference,
    Select,
    Span,
    walk,
)
from influxrelay.influxql.expressions import ExpressionParser
from influxrelay.influxql.tokens import QueryError

T = TypeVar("T")

_CONDITIONS = frozenset(("=", "!=", "=~", "!~", "<", "<=", ">", ">=", "AND", "OR"))


class ClauseParser(ExpressionParser):
    """Reads SELECT, and the clauses of statements."""

    def select(self, start: int, *, target: str = "may have one") -> Select:
        """Read what follows SELECT.

        :param target: ``needed`` where there has to be an INTO.
        """
        clauses: dict[str, Span] = {}
        fields = self.clause(clauses, "fields", lambda: self._spaced_list(self._field))
        into = self._target(needed=target == "needed")
        self.expect("FROM")
        sources = self.listed(lambda: self.source(subqueries=True))
        condition = self.clause(clauses, "where", self.condition)
        dimensions = self.clause(clauses, "group", self.dimensions)
        fill, value = self.clause(clauses, "fill", self._fill)
        order = self.clause(clauses, "order", self.order)
        bounds = self.bounds(clauses, "limit", "offset", "slimit", "soffset")
        zone = self.clause(clauses, "tz", self._zone)
        return Select(
            fields=fields,
            sources=sources,
            target=into,
            condition=condition,
            dimensions=dimensions,
            fill=fill,
            fill_value=value,
            ordered=order is not None,
            descending=order is False,
            zone=zone,
            clauses=clauses,
            span=(start, self.last_end),
            bounds=bounds,
        )

    def clause(self, clauses: dict[str, Span], name: str, read: Callable[[], T]) -> T:
        """Read a clause, and note where it stands if it is there."""
        start = self.upcoming()
        found = read()
        if self.last_end > start:
            clauses[name] = (start, self.last_end)
        return found

    def _spaced_list(self, read: Callable[[], T]) -> tuple[T, ...]:
        """Read one or more with commas between them, where a comment before a comma is none."""
        found = [read()]
        while self.scan().kind == ",":
            found.append(read())
        self.unscan()
        return tuple(found)

    def _field(self) -> Field:
        found: Expression | None = self.regex()
        if found is None:
            found = self.expression()
            wrong = next(
                (each for each in walk(found) if isinstance(each, Binary) and each.operator in _CONDITIONS), None
            )
            if wrong is not None:
                raise QueryError(f"invalid operator {wrong.operator} in SELECT clause", self.last_end)
        alias = self.name() if self.take("AS") else ""
        self.skip_space()
        return Field(found, alias)

    def _target(self, *, needed: bool) -> Measurement | None:
        token = self.token()
        if token.kind != "INTO":
            if needed:
                raise self.error(token, "INTO")
            self.unscan()
            return None
        start = self.upcoming()
        names = self.segments()
        if len(names) < 3 and self.scanner.peek() == ":":
            self.expect(":")
            self.expect("MEASUREMENT")
            names.append("")
        database, policy, name = ["", "", *names][-3:]
        return Measurement(database, policy, name, span=(start, self.last_end))

    def source(self, *, subqueries: bool) -> Measurement | Select:
        """Read a measurement, an expression for its name, or a subquery."""
        found = self.regex()
        if found is not None:
            return Measurement(regex=found, span=(self.seen[-1].start, self.last_end))
        if subqueries and self.take("("):
            with self.nested():
                select = self.select(self.expect("SELECT").start)
                self.expect(")")
            return select
        start = self.upcoming()
        names = self.segments()
        found = self.regex() if len(names) < 3 else None
        database, policy, name = (["", "", *names] if found is None else ["", "", *names, ""])[-3:]
        return Measurement(database, policy, name, found, (start, self.last_end))

    def condition(self) -> Expression | None:
        """Read WHERE and what follows, if it is there."""
        return self.expression() if self.take("WHERE") else None

    def dimensions(self) -> tuple[Expression, ...]:
        """Read GROUP BY and what follows, if it is there."""
        if not self.take("GROUP"):
            return ()
        self.expect("BY")
        return self._spaced_list(self._dimension)

    def _dimension(self) -> Expression:
        found: Expression | None = self.regex()
        if found is None:
            found = self.expression()
            self.skip_space()
        return found

    def _called(self, name: str, arguments: int) -> tuple[Expression, ...] | None:
        """Read the call that makes a clause, if it is there."""
        token = self.token()
        self.unscan()
        if token.kind != "IDENT" or token.value.lower() != name:
            return None
        call = self.expression()
        if not isinstance(call, Call) or len(call.arguments) != arguments:
            raise QueryError(f"{name} must be a function call with {arguments} argument", token.start)
        return call.arguments

    def _fill(self) -> tuple[str, float | int | None]:
        arguments = self._called("fill", 1)
        if arguments is None:
            return "null", None
        (value,) = arguments
        if isinstance(value, Reference) and value.type == "" and value.name in ("null", "none", "previous", "linear"):
            return value.name, None
        if isinstance(value, Literal) and value.kind in ("integer", "number") and int(value.value) < 2**63:  # type: ignore[arg-type]
            return "number", value.value  # type: ignore[return-value]
        raise QueryError("expected number argument in fill()", self.last_end)

    def _zone(self) -> str:
        arguments = self._called("tz", 1)
        if arguments is None:
            return ""
        (value,) = arguments
        if not isinstance(value, Literal) or not isinstance(value.value, str):
            raise QueryError("expected string argument in tz()", self.last_end)
        if value.value not in ("", "UTC", "Local"):
            try:
                ZoneInfo(value.value)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise QueryError(f"unable to find time zone {value.value}", self.last_end) from None
        return value.value

    def order(self) -> bool | None:
        """Read ORDER BY; return whether the earliest comes first, None if it is not there."""
        if not self.take("ORDER"):
            return None
        self.expect("BY")
        token = self.expect("ASC", "DESC", "IDENT")
        ascending = token.kind != "DESC"
        if token.kind == "IDENT":
            direction = self.take("ASC", "DESC")
            ascending = direction is None or direction.kind == "ASC"
            if token.value != "time":
                raise QueryError("only ORDER BY time supported at this time", token.start)
        if self.take(","):
            raise QueryError("only ORDER BY time supported at this time", token.start)
        return ascending

    def bounds(self, clauses: dict[str, Span], *names: str) -> Bounds:
        """Read LIMIT, OFFSET and so on, in this order, as far as they are there."""
        found = {}
        for name in names:
            found[name] = self.clause(clauses, name, partial(self._bound_of, name.upper()))
        return Bounds(**found)

    def _bound_of(self, keyword: str) -> int:
        return min(int(self.expect("INTEGER").value), 2**63 - 1) if self.take(keyword) else 0
