"""How a SELECT over shards is answered: by one of them, by all side by side, or not at all."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import attrs

from influxrelay.influxql.ast import Call, Distinct, Expression, Literal, Measurement, Reference, Select, Wildcard, walk
from influxrelay.influxql.timerange import TimeRange
from influxrelay.influxql.unparsing import Writer
from influxrelay.sharding.aggregates import Aggregate, aggregate
from influxrelay.sharding.concern import Leaf, bounded_range, is_one_epoch, keys_of, leaves, places
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.placement import ShardMap
from influxrelay.sharding.rewriting import has_wildcards, references, rewritten, with_upper_bound
from influxrelay.sharding.schema import Schema, of_no_series, question
from influxrelay.sharding.windows import Windows

MATH = frozenset(
    (
        *("abs", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "exp", "log", "ln", "log2", "log10", "sqrt"),
        *("pow", "floor", "ceil", "round"),
    )
)
_UNCERTAIN = frozenset(
    ("sample", "holt_winters", "holt_winters_with_fit", "integral")
)  # of groups: InfluxDB is not sure


@attrs.frozen
class Rows:
    """Every shard is asked the same, and its rows take their places among those of the others.

    :ivar limit: and ``offset``: of the rows of each series, to be applied to the whole; 0 where the shards have.
    """

    text: str
    descending: bool
    limit: int = 0
    offset: int = 0


class SelectPlan:
    """What is known of a SELECT before any shard is asked.

    :ivar everywhere: the shards that may hold what it reads.
    :raises ValueError: InfluxDB does not understand a condition on time either.
    """

    def __init__(self, select: Select, shards: ShardMap, now: int) -> None:
        self.select = select
        self._shards = shards
        self._now = now
        self._writer = Writer(now)
        if any(each.zone == "Local" for each in select.selects()) and len(shards.shards) > 1:
            raise Refused("tz('Local') is another one at each server: name the time zone")
        self.leaves: list[Leaf] = list(leaves(select, now))
        if not self.leaves:
            raise Refused("it reads nothing")
        self.everywhere: frozenset[str] = frozenset()
        self._at_any_time: frozenset[str] = frozenset()
        for leaf in self.leaves:
            keys = keys_of(leaf, shards)
            self.everywhere |= places(shards, keys, leaf.range)
            self._at_any_time |= places(shards, keys, TimeRange())

    @property
    def measurements(self) -> list[Measurement]:
        """What it reads, in subqueries too."""
        return list(dict.fromkeys(self.select.measurements()))

    @property
    def range(self) -> TimeRange:
        """The times that it reads."""
        ranges = [leaf.range for leaf in self.leaves]
        return TimeRange(min(each.since for each in ranges), max(each.until for each in ranges))

    @property
    def is_at_home(self) -> bool:
        """Whether one shard alone has ever seen what it reads, so that nobody else knows more of it."""
        return self._shards.key.tag is None and len(self._at_any_time) == 1

    @property
    def has_wildcards(self) -> bool:
        """Whether its result depends on fields and tags that it does not name."""
        unnamed = any(each.regex is not None for each in self.measurements)
        return unnamed or any(has_wildcards(leaf.select) for leaf in self.leaves)

    @property
    def has_one_database(self) -> bool:
        """Whether all that it reads is in one database."""
        return len({each.database for each in self.measurements}) == 1

    def question(self) -> str:
        """Return what to ask for what a shard knows of what it reads.

        :raises Refused: as :func:`~influxrelay.sharding.schema.question`.
        """
        return question(self.measurements, self.range, tags=self.has_wildcards)

    def check_text(self) -> str:
        """Return what to ask for what InfluxDB has to object to it."""
        return f"EXPLAIN {self._writer.select(of_no_series(self.select))}"

    def names_unknown(self, schema: Schema) -> bool:
        """Tell whether it names fields or tags that are not known."""
        known = schema.tags | set(schema.fields)
        return any(references(leaf.select) - known for leaf in self.leaves)

    def check(self) -> None:
        """Refuse what cannot be answered by several shards, whatever they know.

        :raises Refused: with the reason.
        """
        for select in self.select.selects():
            bounds = select.bounds
            if bounds.slimit or bounds.soffset:
                raise Refused(
                    "SLIMIT and SOFFSET over several shards would count other series: fix the shard key by WHERE"
                )
            if bounds.offset and not bounds.limit:
                raise Refused("OFFSET over several shards needs a LIMIT")

    def check_key(self, schema: Schema) -> None:
        """Refuse what takes a field for the shard key.

        :raises Refused: the tag is also a field.
        """
        tag = self._shards.key.tag
        if tag is not None and (name := tag.decode("utf-8", "surrogateescape")) in schema.fields:
            raise Refused(f'"{name}", the shard key, is a field as well as a tag: rename the field')

    def text(self, schema: Schema) -> str:
        """Return what a shard is asked that answers alone.

        :raises Refused: as :func:`rewritten`.
        """
        return self._writer.select(self._rewritten(self.select, schema))

    def _rewritten(self, select: Select, schema: Schema) -> Select:
        if all(isinstance(each, Measurement) for each in select.sources):
            found = rewritten(select, schema)
            return self._bounded(found if found.fields else attrs.evolve(found, fields=select.fields))
        inner = [self._rewritten(each, schema) if isinstance(each, Select) else each for each in select.sources]
        if any(isinstance(each, Measurement) for each in inner):
            raise Refused("it reads measurements as well as subqueries")
        return self._bounded(attrs.evolve(select, sources=tuple(inner)))

    def _bounded(self, select: Select) -> Select:
        """Return a SELECT whose range ends now where InfluxDB would let it."""
        whole = bounded_range(select, self._now)
        if select.interval() and not whole.has_until:
            return with_upper_bound(select, whole.until)
        return select

    def over(self, schema: Schema) -> Rows | Aggregate:
        """Return how several shards are asked.

        :raises Refused: the result could differ from what one server with all the data would say.
        """
        select = self._rewritten(self.select, schema)
        if self._is_apart(select):
            self._check_windows(self.select)
            return Rows(self._writer.select(select), select.descending)
        if any(isinstance(each, Select) for each in select.sources):
            raise Refused(
                "a subquery over several shards: group it and the query around it by the shard key within one epoch, "
                "or fix the key by WHERE in the subquery"
            )
        if not any(_is_function(each) for field in select.fields for each in walk(field.expression)):
            return self._raw(select)
        self._check_dimensions(select)
        return aggregate(select, schema, self._writer, bounded_range(select, self._now))

    def _check_windows(self, select: Select, around: Select | None = None, outer: TimeRange | None = None) -> None:
        """Refuse subqueries with a window that begins before their range: InfluxDB loses groups behind the first one.

        :param around: the SELECT around this one, whose windows it has if it has none.
        :param outer: the range of that one.
        """
        whole = bounded_range(select, self._now)
        whole = whole if outer is None else whole.intersection(outer)
        timed = select if select.interval() or around is None else around
        if outer is not None and timed.interval() and whole.has_since:
            zone = ZoneInfo(select.zone) if select.zone not in ("", "UTC") else None
            windows = Windows(timed.interval(), offset_of(timed, self._now), whole.since, whole.until, zone)
            if windows.start(whole.since) != whole.since:
                raise Refused(
                    "a subquery over several shards whose first window begins before its range, so that InfluxDB may "
                    "lose groups: begin the range with a window, or fix the shard key by WHERE"
                )
        for each in select.sources:
            if isinstance(each, Select):
                self._check_windows(each, timed, whole)

    def _is_apart(self, select: Select) -> bool:
        """Tell whether each of its series lies on one shard, with all that it is computed from."""
        if not all(is_one_epoch(self._shards, leaf.range) for leaf in self.leaves):
            return False
        for each in select.selects():
            calls = {e.name for field in each.fields for e in walk(field.expression) if isinstance(e, Call)}
            if calls & _UNCERTAIN:
                return False
        tag = self._shards.key.tag
        if tag is None:
            return True
        name = tag.decode("utf-8", "surrogateescape")
        return all(any(_names(each, name) for each in level.dimensions) for level in select.selects())

    def _raw(self, select: Select) -> Rows:
        if select.fill == "previous":
            raise Refused("fill(previous) of rows over several shards: group by the shard key, or fix it by WHERE")
        bounds = select.bounds
        if bounds.limit:
            pushed = attrs.evolve(bounds, limit=bounds.limit + bounds.offset, offset=0)
            select = attrs.evolve(select, bounds=pushed)
        return Rows(self._writer.select(select), select.descending, bounds.limit, bounds.offset)

    def _check_dimensions(self, select: Select) -> None:
        for each in select.dimensions:
            if isinstance(each, Call) and len(each.arguments) == 2:
                offset = each.arguments[1]
                is_now = isinstance(offset, Call) and offset.name == "now"
                if not is_now and not (isinstance(offset, Literal) and offset.kind == "duration"):
                    raise Refused("the second argument of time() over several shards has to be a duration")
        is_shifted = bool(offset_of(select, self._now)) or select.zone not in ("", "UTC")
        if select.interval() and is_shifted and not bounded_range(select, self._now).has_since:
            raise Refused("shifted windows, or those of a time zone, over several shards need a lower bound of time")


def _is_function(expression: Expression) -> bool:
    """Tell whether it is a function of more than one row."""
    return isinstance(expression, Distinct) or (isinstance(expression, Call) and expression.name not in MATH)


def _names(dimension: Expression, tag: str) -> bool:
    return (isinstance(dimension, Reference) and dimension.name == tag) or isinstance(dimension, Wildcard)


def offset_of(select: Select, now: int) -> int:
    """Return the offset of the windows of ``GROUP BY time()``, in nanoseconds (``compile.go``)."""
    for each in select.dimensions:
        if isinstance(each, Call) and each.name == "time" and len(each.arguments) == 2:
            offset, interval = each.arguments[1], select.interval()
            if isinstance(offset, Literal) and isinstance(offset.value, int):
                return offset.value % interval if offset.value >= 0 else -(-offset.value % interval)
            return now % interval
    return 0
