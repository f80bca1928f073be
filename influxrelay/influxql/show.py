"""SHOW statements (``influxdata/influxql``, ``parser.go``)."""

from __future__ import annotations

import attrs

from influxrelay.influxql.ast import Expression, Literal, Measurement, Regex, Select, Span, Statement
from influxrelay.influxql.select import ClauseParser


class ShowParser(ClauseParser):
    """Reads SHOW statements: one method for each kind, which is called behind its keywords."""

    def plain(self, kind: str, start: int) -> Statement:
        """Read nothing more."""
        return Statement(kind, (start, start))

    def for_module(self, kind: str, start: int) -> Statement:
        """Read ``FOR`` and a module's name, if it is there."""
        return Statement(kind, (start, start), name=self.string().value if self.take("FOR") else "")

    def named(self, kind: str, start: int) -> Statement:
        """Read a name."""
        return Statement(kind, (start, start), name=self.name())

    def on_database(self, kind: str, start: int) -> Statement:
        """Read ``ON`` and a database, if it is there."""
        return Statement(kind, (start, start), database=self.on_clause())

    def on_clause(self) -> str:
        """Read ``ON`` and a database, if it is there; return the database or an empty string."""
        return self.name() if self.take("ON") else ""

    def from_clause(self) -> tuple[Measurement | Select, ...]:
        """Read ``FROM`` and its sources, if it is there."""
        return self.listed(lambda: self.source(subqueries=False)) if self.take("FROM") else ()

    def show_series(self, kind: str, start: int) -> Statement:
        """Read what follows ``SHOW SERIES``."""
        self.take("EXACT")  # InfluxDB lets it stand alone, too
        if self.take("CARDINALITY"):
            return self._cardinality(kind, start)
        return self._show(kind, start, "limit", "offset")

    def show_measurements(self, kind: str, start: int) -> Statement:
        """Read what follows ``SHOW MEASUREMENTS``."""
        database = self.on_clause()
        sources: tuple[Measurement | Select, ...] = ()
        if self.take("WITH"):
            self.expect("MEASUREMENT")
            self.expect("=", "=~")
            sources = (self.source(subqueries=False),)
        return attrs.evolve(self._show(kind, start, "limit", "offset", scope=False), database=database, sources=sources)

    def show_tag_keys(self, kind: str, start: int) -> Statement:
        """Read what follows ``SHOW TAG KEYS``."""
        return self._show(kind, start, "limit", "offset", "slimit", "soffset")

    def show_field_keys(self, kind: str, start: int) -> Statement:
        """Read what follows ``SHOW FIELD KEYS``."""
        return self._show(kind, start, "limit", "offset", condition=False)

    def _show(self, kind: str, start: int, *bounds: str, scope: bool = True, condition: bool = True) -> Statement:
        clauses: dict[str, Span] = {}
        database = self.on_clause() if scope else ""
        sources = self.from_clause() if scope else ()
        where = self.clause(clauses, "where", self.condition) if condition else None
        ascending = self.clause(clauses, "order", self.order)
        return Statement(
            kind,
            (start, start),
            database=database,
            sources=sources,
            condition=where,
            descending=ascending is False,
            clauses=clauses,
            bounds=self.bounds(clauses, *bounds),
        )

    def show_tag_values(self, kind: str, start: int) -> Statement:
        """Read what follows ``SHOW TAG VALUES``."""
        if self.take("EXACT"):
            self.expect("CARDINALITY")
            return self._cardinality(kind, start, tag_keys=True)
        if self.take("CARDINALITY"):
            return self._cardinality(kind, start, tag_keys=True)
        database, sources, keys = self.on_clause(), self.from_clause(), self._tag_keys()
        shown = self._show(kind, start, "limit", "offset", scope=False)
        return attrs.evolve(shown, database=database, sources=sources, tag_keys=keys)

    def _tag_keys(self) -> tuple[str, Literal | Regex]:
        self.expect("WITH")
        self.expect("KEY")
        token = self.expect("IN", "=", "!=", "=~", "!~")
        if token.kind == "IN":
            self.expect("(")
            names = self.listed(self.name)
            self.expect(")")
            return "IN", Literal("list", names)
        if token.kind in ("=", "!="):
            return token.kind, Literal("string", self.name())
        found = self.regex()
        if found is None:
            raise self.error(self.token(), "regex")
        return token.kind, found

    def key_cardinality(self, kind: str, start: int) -> Statement:
        """Read what follows ``SHOW TAG KEY`` and ``SHOW FIELD KEY``."""
        self.take("EXACT")
        self.expect("CARDINALITY")
        return self._cardinality(kind, start)

    def exact_cardinality(self, kind: str, start: int) -> Statement:
        """Read what follows ``SHOW MEASUREMENT EXACT``."""
        self.expect("CARDINALITY")
        return self._cardinality(kind.removesuffix(" EXACT"), start)

    def cardinality(self, kind: str, start: int) -> Statement:
        """Read what follows ``SHOW MEASUREMENT CARDINALITY``."""
        return self._cardinality(kind.removesuffix(" CARDINALITY"), start)

    def _cardinality(self, kind: str, start: int, *, tag_keys: bool = False) -> Statement:
        clauses: dict[str, Span] = {}
        database, sources = self.on_clause(), self.from_clause()
        keys = self._tag_keys() if tag_keys else None
        condition: Expression | None = self.clause(clauses, "where", self.condition)
        dimensions = self.clause(clauses, "group", self.dimensions)
        return Statement(
            f"{kind} CARDINALITY",
            (start, start),
            database=database,
            sources=sources,
            condition=condition,
            dimensions=dimensions,
            tag_keys=keys,
            clauses=clauses,
            bounds=self.bounds(clauses, "limit", "offset"),
        )
