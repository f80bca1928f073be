"""Whole queries: what each statement is, what it speaks of, where its passwords and its ``now()`` stand.

The grammar is InfluxDB 1.x's (``influxdata/influxql``, ``parse_tree.go`` and ``parser.go``), with what 1.8 and
1.12 have added: a statement that an older server does not know gets that server's own answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from influxrelay.influxql.ast import Measurement, Span, Statement
from influxrelay.influxql.show import ShowParser
from influxrelay.influxql.tokens import QueryError

__all__ = ["QueryError", "parse"]

_HIGHEST = 2**31 - 1  # for REPLICATION


def parse(text: str, parameters: Mapping[str, Any] | None = None) -> tuple[Statement, ...]:
    """Return the statements of a query.

    :param parameters: the values of ``params``, which stand for ``$name``.
    :raises QueryError: it is none, as far as is known.
    """
    return _Parser(text, parameters).query()


class _Parser(ShowParser):
    """Reads statements: one method for each, which is called behind its keywords."""

    def query(self) -> tuple[Statement, ...]:
        """Read all."""
        found: list[Statement] = []
        separated = True
        while (token := self.token()).kind != "EOF":
            if token.kind == ";":
                separated = True
                continue
            if not separated:
                raise self.error(token, ";")
            self.unscan()
            self.forget()
            found.append(self._statement(token.start))
            separated = False
        return tuple(found)

    def _statement(self, start: int) -> Statement:
        self.nows = []
        tree: Any = _LANGUAGE
        keywords: list[str] = []
        while isinstance(tree, dict):
            token = self.expect(*tree)
            keywords.append(token.kind)
            tree = tree[token.kind]
        read: Callable[[_Parser, str, int], Statement] = tree
        statement = read(self, " ".join(keywords), start)
        nows = () if statement.kind == "CREATE CONTINUOUS QUERY" else tuple(self.nows)
        return attrs.evolve(statement, span=(start, self.last_end), nows=nows)

    # -- reading

    def select_statement(self, kind: str, start: int) -> Statement:
        return Statement(kind, (start, start), select=self.select(start))

    def explain(self, kind: str, start: int) -> Statement:
        kind = "EXPLAIN ANALYZE" if self.take("ANALYZE") else kind
        return Statement(kind, (start, start), select=self.select(self.expect("SELECT").start))

    # -- databases, retention policies, users

    def create_database(self, kind: str, start: int) -> Statement:
        name = self.name()
        if self.take("WITH"):
            self.expect("DURATION", "NAME", "REPLICATION", "SHARD", "IDENT")
            self.unscan()
            if self.take("DURATION"):
                self.duration()
            if self.take("REPLICATION"):
                self.integer(1, _HIGHEST)
            if self.take("SHARD"):
                self.expect("DURATION")
                self.duration()
            self._limits()
            if self.take("NAME"):
                self.name()
        return Statement(kind, (start, start), name=name, database=name)

    def _limits(self) -> None:
        """Read ``FUTURE LIMIT`` and ``PAST LIMIT`` (1.12); these words are no keywords of older versions."""
        for word in ("future", "past"):
            token = self.take("IDENT")
            if token is None:
                return
            if token.value.lower() != word:
                self.unscan()
                continue
            self.expect("LIMIT")
            self.duration()

    def database(self, kind: str, start: int) -> Statement:
        name = self.name()
        return Statement(kind, (start, start), name=name, database=name)

    def create_retention_policy(self, kind: str, start: int) -> Statement:
        name, database = self._name_on()
        self.expect("DURATION")
        self.duration()
        self.expect("REPLICATION")
        self.integer(1, _HIGHEST)
        if self.take("SHARD"):
            self._shard_duration()
        self._limits()
        self.take("DEFAULT")
        return Statement(kind, (start, start), name=name, database=database)

    def _shard_duration(self) -> None:
        self.expect("DURATION")
        self.expect("DURATION_VALUE")
        self.unscan()
        self.duration()

    def _name_on(self) -> tuple[str, str]:
        name = self.name()
        self.expect("ON")
        return name, self.name()

    def alter_retention_policy(self, kind: str, start: int) -> Statement:
        token = self.expect("IDENT", "DEFAULT")
        name = token.value if token.kind == "IDENT" else "default"
        self.expect("ON")
        database = self.name()
        seen: set[str] = set()
        options = ("DURATION", "REPLICATION", "SHARD", "DEFAULT")
        while (token := self.token()).kind in options:
            if token.kind in seen:
                raise QueryError(f"found duplicate {token.kind} option", token.start)
            seen.add(token.kind)
            if token.kind == "DURATION":
                self.duration()
            elif token.kind == "REPLICATION":
                self.integer(1, _HIGHEST)
            elif token.kind == "SHARD":
                self._shard_duration()
        if not seen:
            raise self.error(token, *options)
        self.unscan()
        self._limits()
        return Statement(kind, (start, start), name=name, database=database)

    def name_on_database(self, kind: str, start: int) -> Statement:
        name, database = self._name_on()
        return Statement(kind, (start, start), name=name, database=database)

    def create_user(self, kind: str, start: int) -> Statement:
        name = self.name()
        self.expect("WITH")
        self.expect("PASSWORD")
        password = self.string()
        if self.take("WITH"):
            self.expect("ALL")
            self.expect("PRIVILEGES")
        return Statement(kind, (start, start), name=name, passwords=((password.start, password.end),))

    def set_password(self, kind: str, start: int) -> Statement:
        name = self.name()
        self.expect("=")
        password = self.string()
        return Statement(kind, (start, start), name=name, passwords=((password.start, password.end),))

    def grant(self, kind: str, start: int) -> Statement:
        return self._privilege(kind, start, "TO")

    def revoke(self, kind: str, start: int) -> Statement:
        return self._privilege(kind, start, "FROM")

    def _privilege(self, kind: str, start: int, direction: str) -> Statement:
        everything = self.expect("READ", "WRITE", "ALL").kind == "ALL"
        if everything:
            self.take("PRIVILEGES")
        database = ""
        if self.expect("ON", *([direction] if everything else [])).kind == "ON":
            database = self.name()
            self.expect(direction)
        return Statement(kind, (start, start), name=self.name(), database=database)

    # -- continuous queries and subscriptions

    def create_continuous_query(self, kind: str, start: int) -> Statement:
        name, database = self._name_on()
        every, until = self._resample() if self.take("RESAMPLE") else (0, 0)
        self.expect("BEGIN")
        select = self.select(self.expect("SELECT").start, target="needed")
        try:
            interval = select.interval()
        except ValueError as error:
            raise QueryError(str(error), self.last_end) from None
        if not select.is_raw and not interval:
            raise self.error(self.token(), "GROUP BY time(...)")
        self.expect("END")
        if until and until < max(interval, every):
            raise QueryError("FOR duration must be >= GROUP BY time duration", self.last_end)
        return Statement(kind, (start, start), name=name, database=database, select=select)

    def _resample(self) -> tuple[int, int]:
        found = []
        for keyword in ("EVERY", "FOR"):
            value = 0
            if self.take(keyword):
                self.expect("DURATION_VALUE")
                self.unscan()
                value = self.duration()
            found.append(value)
        if not any(found):
            raise self.error(self.token(), "EVERY", "FOR")
        return found[0], found[1]

    def create_subscription(self, kind: str, start: int) -> Statement:
        name, database = self._name_on_policy()
        self.expect("DESTINATIONS")
        self.expect("ALL", "ANY")
        self.listed(self.string)
        return Statement(kind, (start, start), name=name, database=database)

    def _name_on_policy(self) -> tuple[str, str]:
        name, database = self._name_on()
        token = self.scan()
        if token.kind != ".":
            raise self.error(token, ".")
        self.name()
        return name, database

    def drop_subscription(self, kind: str, start: int) -> Statement:
        name, database = self._name_on_policy()
        return Statement(kind, (start, start), name=name, database=database)

    # -- data

    def delete(self, kind: str, start: int) -> Statement:
        clauses: dict[str, Span] = {}
        sources = self.from_clause()
        if kind == "DROP SERIES" and any(isinstance(e, Measurement) and (e.database or e.policy) for e in sources):
            raise QueryError("database and retention policy are not supported", self.last_end)
        condition = self.clause(clauses, "where", self.condition)
        if not sources and condition is None:
            raise self.error(self.token(), "FROM", "WHERE")
        return Statement(kind, (start, start), sources=sources, condition=condition, clauses=clauses)

    def numbered(self, kind: str, start: int) -> Statement:
        token = self.expect("INTEGER")
        if int(token.value) >= 2**64:
            raise QueryError(f"value out of range: {token.value}", token.start)
        if kind == "KILL QUERY" and self.take("ON"):
            self.name()
        return Statement(kind, (start, start), name=token.value)


_LANGUAGE: dict[str, Any] = {
    "SELECT": _Parser.select_statement,
    "DELETE": _Parser.delete,
    "SHOW": {
        "CONTINUOUS": {"QUERIES": _Parser.plain},
        "DATABASES": _Parser.plain,
        "DIAGNOSTICS": _Parser.for_module,
        "FIELD": {"KEY": _Parser.key_cardinality, "KEYS": _Parser.show_field_keys},
        "GRANTS": {"FOR": _Parser.named},
        "MEASUREMENT": {"EXACT": _Parser.exact_cardinality, "CARDINALITY": _Parser.cardinality},
        "MEASUREMENTS": _Parser.show_measurements,
        "QUERIES": _Parser.plain,
        "RETENTION": {"POLICIES": _Parser.on_database},
        "SERIES": _Parser.show_series,
        "SHARD": {"GROUPS": _Parser.plain},
        "SHARDS": _Parser.plain,
        "STATS": _Parser.for_module,
        "SUBSCRIPTIONS": _Parser.plain,
        "TAG": {"KEY": _Parser.key_cardinality, "KEYS": _Parser.show_tag_keys, "VALUES": _Parser.show_tag_values},
        "USERS": _Parser.plain,
    },
    "CREATE": {
        "CONTINUOUS": {"QUERY": _Parser.create_continuous_query},
        "DATABASE": _Parser.create_database,
        "USER": _Parser.create_user,
        "RETENTION": {"POLICY": _Parser.create_retention_policy},
        "SUBSCRIPTION": _Parser.create_subscription,
    },
    "DROP": {
        "CONTINUOUS": {"QUERY": _Parser.name_on_database},
        "DATABASE": _Parser.database,
        "MEASUREMENT": _Parser.named,
        "RETENTION": {"POLICY": _Parser.name_on_database},
        "SERIES": _Parser.delete,
        "SHARD": _Parser.numbered,
        "SUBSCRIPTION": _Parser.drop_subscription,
        "USER": _Parser.named,
    },
    "EXPLAIN": _Parser.explain,
    "GRANT": _Parser.grant,
    "REVOKE": _Parser.revoke,
    "ALTER": {"RETENTION": {"POLICY": _Parser.alter_retention_policy}},
    "SET": {"PASSWORD": {"FOR": _Parser.set_password}},
    "KILL": {"QUERY": _Parser.numbered},
}
