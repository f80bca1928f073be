"""What the parser makes of a query: expressions, sources, statements.

Positions are in characters of the query's text. Names are without quotes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import attrs

Span = tuple[int, int]
"""Where something begins, and where it is over."""


@attrs.frozen
class Literal:
    """A constant.

    :ivar kind: ``string``, ``number``, ``integer``, ``boolean``, ``duration`` (nanoseconds) or ``list``.
    """

    kind: str
    value: str | float | int | bool | tuple[str, ...]


@attrs.frozen
class Regex:
    """A regular expression, without its slashes."""

    pattern: str


@attrs.frozen
class Wildcard:
    """A ``*``; ``type`` is ``field``, ``tag`` or empty."""

    type: str = ""


@attrs.frozen
class Reference:
    """A field or a tag; ``type`` is what stands behind ``::``, in lower case, or empty."""

    name: str
    type: str = ""


@attrs.frozen
class Distinct:
    """``DISTINCT name``, without parentheses."""

    name: str


@attrs.frozen
class Call:
    """A function's call; its name is in lower case."""

    name: str
    arguments: tuple[Expression, ...]
    span: Span = attrs.field(eq=False)


@attrs.frozen
class Parentheses:
    """An expression in parentheses."""

    inner: Expression


@attrs.frozen
class Binary:
    """An operator between two expressions."""

    operator: str
    left: Expression
    right: Expression


Expression = Literal | Regex | Wildcard | Reference | Distinct | Call | Parentheses | Binary


def walk(expression: Expression | None) -> Iterator[Expression]:
    """Yield an expression and all within it."""
    waiting = [expression] if expression is not None else []
    while waiting:
        found = waiting.pop()
        yield found
        if isinstance(found, Binary):
            waiting += (found.right, found.left)
        elif isinstance(found, Parentheses):
            waiting.append(found.inner)
        elif isinstance(found, Call):
            waiting += reversed(found.arguments)


@attrs.frozen
class Measurement:
    """Where a statement reads from or writes to.

    :ivar database: and ``policy``: empty for the default.
    :ivar name: empty where ``regex`` chooses, and for ``INTO rp.:MEASUREMENT``.
    """

    database: str = ""
    policy: str = ""
    name: str = ""
    regex: Regex | None = None
    span: Span = attrs.field(default=(0, 0), eq=False)


@attrs.frozen
class Field:
    """A column of a SELECT."""

    expression: Expression
    alias: str = ""


@attrs.frozen
class Bounds:
    """How many rows and series are wanted, and how many are passed over before; 0 for no bound."""

    limit: int = 0
    offset: int = 0
    slimit: int = 0
    soffset: int = 0


@attrs.frozen
class Select:
    """A SELECT, at the top or within another one.

    :ivar target: behind INTO.
    :ivar fill: ``null``, ``none``, ``previous``, ``linear`` or ``number`` with ``fill_value``.
    :ivar descending: whether ORDER BY asks for the latest first.
    :ivar zone: behind ``tz``; empty for UTC.
    :ivar clauses: where each clause that can be taken away or changed stands: ``fields``, ``where``, ``group``,
        ``fill``, ``order``, ``limit``, ``offset``, ``slimit``, ``soffset``, ``tz``.
    """

    fields: tuple[Field, ...]
    sources: tuple[Measurement | Select, ...]
    target: Measurement | None = None
    condition: Expression | None = None
    dimensions: tuple[Expression, ...] = ()
    fill: str = "null"
    fill_value: float | int | None = None
    ordered: bool = False
    descending: bool = False
    bounds: Bounds = Bounds()
    zone: str = ""
    clauses: dict[str, Span] = attrs.field(factory=dict, eq=False)
    span: Span = attrs.field(default=(0, 0), eq=False)

    @property
    def is_raw(self) -> bool:
        """Whether it calls no function."""
        return not any(isinstance(each, Call) for field in self.fields for each in walk(field.expression))

    def measurements(self) -> Iterator[Measurement]:
        """Yield what it reads from, in subqueries too."""
        for source in self.sources:
            if isinstance(source, Select):
                yield from source.measurements()
            else:
                yield source

    def selects(self) -> Iterator[Select]:
        """Yield it and its subqueries."""
        yield self
        for source in self.sources:
            if isinstance(source, Select):
                yield from source.selects()

    def interval(self) -> int:
        """Return the nanoseconds of ``GROUP BY time(...)``; 0 for none.

        :raises ValueError: its arguments make no sense.
        """
        for each in self.dimensions:
            if isinstance(each, Call) and each.name == "time":
                if len(each.arguments) not in (1, 2):
                    raise ValueError("time dimension expected 1 or 2 arguments")
                first = each.arguments[0]
                if not isinstance(first, Literal) or first.kind != "duration":
                    raise ValueError("time dimension must have duration argument")
                return int(first.value)  # type: ignore[arg-type]
        return 0


class Class(enum.Enum):
    """Whom a statement concerns."""

    READ = "changes nothing: one server answers"
    CHANGE = "has to be executed by every server"
    ONE_SERVER = "speaks of what one server has by itself"


@attrs.frozen
class Statement:
    """A statement.

    :ivar kind: its keywords, such as ``SHOW TAG VALUES``; ``EXPLAIN`` and ``SELECT`` have a ``select``.
    :ivar name: of what it creates, drops, grants to or shows; empty if it has none.
    :ivar database: that it names, be it behind ON or as what it creates or drops; empty if none.
    :ivar select: of SELECT, EXPLAIN and CREATE CONTINUOUS QUERY.
    :ivar sources: behind FROM or WITH MEASUREMENT, where it is no SELECT.
    :ivar condition: behind WHERE, where it is no SELECT.
    :ivar tag_keys: of SHOW TAG VALUES: the operator and the list, name or expression behind WITH KEY.
    :ivar clauses: as for :class:`Select`, where it is no SELECT.
    :ivar passwords: where they stand, with their quotes.
    :ivar nows: where ``now()`` is called that means the time at which the statement is executed; not in the body of a
        continuous query.
    """

    kind: str
    span: Span = attrs.field(eq=False)
    name: str = ""
    database: str = ""
    select: Select | None = None
    sources: tuple[Measurement | Select, ...] = ()
    condition: Expression | None = None
    dimensions: tuple[Expression, ...] = ()
    tag_keys: tuple[str, Literal | Regex] | None = None
    descending: bool = False
    bounds: Bounds = Bounds()
    clauses: dict[str, Span] = attrs.field(factory=dict, eq=False)
    passwords: tuple[Span, ...] = attrs.field(default=(), eq=False)
    nows: tuple[Span, ...] = attrs.field(default=(), eq=False)

    @property
    def klass(self) -> Class:
        """Whom it concerns."""
        if self.kind in ("DROP SHARD", "KILL QUERY"):
            return Class.ONE_SERVER
        if self.kind == "SELECT":
            return Class.CHANGE if self.select is not None and self.select.target is not None else Class.READ
        return Class.READ if self.kind.startswith(("SHOW ", "EXPLAIN")) else Class.CHANGE

    def databases(self, default: str) -> frozenset[str]:
        """Return the databases that it speaks of.

        :param default: the request's ``db``; it counts where the statement leaves one open.
        """
        named = {self.database} if self.database else set()
        measurements = [each for each in self.sources if isinstance(each, Measurement)]
        if self.select is not None:
            measurements += self.select.measurements()
            for select in self.select.selects():
                measurements += [select.target] if select.target is not None else []
        left_open = self.database or default
        named |= {each.database or left_open for each in measurements}
        if not named and self.kind in _OF_THE_DEFAULT_DATABASE:
            named.add(default)
        return frozenset(named - {""})


_OF_THE_DEFAULT_DATABASE = frozenset(
    (
        "DELETE",
        "DROP MEASUREMENT",
        "DROP SERIES",
        "SHOW FIELD KEY CARDINALITY",
        "SHOW FIELD KEYS",
        "SHOW MEASUREMENT CARDINALITY",
        "SHOW MEASUREMENTS",
        "SHOW RETENTION POLICIES",
        "SHOW SERIES",
        "SHOW SERIES CARDINALITY",
        "SHOW TAG KEY CARDINALITY",
        "SHOW TAG KEYS",
        "SHOW TAG VALUES",
        "SHOW TAG VALUES CARDINALITY",
    )
)
