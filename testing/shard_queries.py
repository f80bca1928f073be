"""Data and queries by chance, for the comparison of shards with one server that has all their data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from influxrelay.sharding.placement import Epoch, ShardKey, ShardMap

BEGIN = 1_767_571_200 * 10**9  # 2026-01-05T00:00:00Z, nanoseconds
HOUR = 3600 * 10**9
BORDER = BEGIN + 6 * HOUR
"""Where the second epoch begins."""
END = BEGIN + 12 * HOUR
POLICY = 'WITH DURATION INF SHARD DURATION 3h NAME "standard"'
CUSTOMERS = (
    "acme",
    "globex",
    "initech",
    "umbrella",
    "wayne",
    "stark industries",
    "o'brien, \\m\u00fcller=\U0001f600",
    "",
)
HOSTS = ("a", "b", "c")


def shard_map(key: str, count: int, *, borders: bool = True) -> ShardMap:
    """Return a map of two epochs, the second of which has one shard more; or of one.

    :param borders: whether there are two.
    """
    names = [f"s{number}" for number in range(1, count + 1)]
    pins = {b"acme": names[0]} if key != "measurement" else {b"disk": names[0]}
    epochs = [Epoch(None, [(each, 1.0) for each in (names[: max(1, count - 1)] if borders else names)], pins)]
    if borders:
        epochs.append(Epoch(BORDER, [(each, 1.0) for each in names], {}))
    default = names[0] if key != "measurement" else None
    return ShardMap(ShardKey.read(key), epochs, default)


Point = tuple[str, dict[str, str], int, str]
"""A measurement, tags, a time, and the line."""


def points(seed: int, count: int) -> list[Point]:
    """Return points: at border times, with ties, with fields that only some have, with types that differ."""
    chance = random.Random(seed)
    found: dict[tuple[str, str, int], Point] = {}
    for _ in range(count):
        point = _point(chance)
        found[point[0], repr(sorted(point[1].items())), point[2]] = point
    return list(found.values())


def _point(chance: random.Random) -> Point:
    customer = chance.choice(CUSTOMERS)
    measurement = chance.choices(("cpu", "mem", "net", "disk", "odd name", "tiny"), (8, 4, 4, 1, 1, 1))[0]
    if measurement == "disk":
        customer = "acme"
    when = chance.choice(
        (
            lambda: BEGIN + chance.randrange(720) * 60 * 10**9,
            lambda: BEGIN + chance.randrange(12 * HOUR),
            lambda: BORDER + chance.choice((-HOUR, -1, 0, 0, 1, HOUR)),
            lambda: BEGIN + chance.choice((0, 3, 6, 9)) * HOUR,
        )
    )()
    tags = {"host": chance.choice(HOSTS)}
    if customer:
        tags["customer"] = customer
    if customer == "globex" and chance.random() < 0.5:
        tags["dc"] = chance.choice(("east", "west"))
    fields = _fields(measurement, customer, when, chance)
    text = ",".join([_escaped(measurement), *(f"{_escaped(k)}={_escaped(v)}" for k, v in sorted(tags.items()))])
    return measurement, tags, when, f"{text} {','.join(fields)} {when}"


def _fields(measurement: str, customer: str, when: int, chance: random.Random) -> list[str]:
    number = chance.randrange(-8, 800) / 8
    if measurement == "cpu":
        fields = [f"value={number}"]
        if chance.random() < 0.5:
            fields.append(f"load={chance.randrange(-20, 20)}i")
        if chance.random() < 0.3:
            fields.append(f"up={chance.choice(('true', 'false'))}")
        if chance.random() < 0.3:
            fields.append(f'msg="{chance.choice(("ok", "slow", "down", ""))}"')
        if chance.random() < 0.2:
            fields.append(f"big={2**53 + chance.randrange(1000)}i")
        if customer == "wayne":
            fields.append(f"rare={number}")
        if when >= BORDER:
            fields.append(f"late={chance.randrange(5)}i")
        return fields if chance.random() < 0.9 else fields[1:] or fields
    return {
        "mem": [f"value={chance.randrange(100)}i", f"used={chance.random()}"],
        "net": [f"in={chance.randrange(10**6)}i", f"out={number}"],
        "disk": [f"free={chance.randrange(1000)}i", 'err="none"'],
        "odd name": [f"my\\ f={number}"],
        "tiny": [f"value={number}"],
    }[measurement]


def _escaped(text: str) -> str:
    for each in ", =":
        text = text.replace(each, f"\\{each}")
    return text


class Queries:
    """Queries by chance; those of dashboards are the most frequent."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def __iter__(self) -> Iterator[str]:
        """Yield queries for ever."""
        kinds: tuple[tuple[int, Callable[[], str]], ...] = (
            (10, self._dashboard),
            (6, self._aggregate),
            (4, self._raw),
            (3, self._show),
            (2, self._any_function),
            (1, self._subquery),
        )
        while True:
            yield self._chance.choices([each for _, each in kinds], [weight for weight, _ in kinds])[0]()

    def _one(self, *choices: str) -> str:
        return self._chance.choice(choices)

    def _maybe(self, text: str, probability: float = 0.5) -> str:
        return text if self._chance.random() < probability else ""

    def _time(self) -> str:
        """Return a range of time as dashboards have it, or a stranger one."""
        chance = self._chance
        since = BEGIN + chance.choice((0, 1, 3, 5, 6, 6, 7, 9)) * HOUR + chance.choice((0, 0, 1, 60 * 10**9, -1))
        until = chance.choice((since + HOUR, since + 3 * HOUR, BORDER, BORDER - 1, END, since + 20 * 60 * 10**9))
        return self._one(
            f"time >= {since // 10**6}ms and time <= {until // 10**6}ms",
            f"time >= {since // 10**6}ms AND time < {until // 10**6}ms",
            f"time >= {since} AND time < {until}",
            f"time > {since} AND time <= {until}",
            f"time >= {since // 10**9}s - 10m AND ({until}ns >= time)",
            "time >= '2026-01-05 04:30:00' AND time <= '2026-01-05T09:00:00.5Z'",
            f"time >= '2026-01-05T0{chance.randrange(9)}:00:00Z' AND time < '2026-01-05T1{chance.randrange(2)}:30:00Z'",
        )

    def _customer(self) -> str:
        """Return a customer as it stands in a string or an expression."""
        found = self._chance.choice([each for each in CUSTOMERS if each] + ["nobody"])
        return found.replace("\\", "\\\\").replace("'", "\\'")

    def _where(self) -> str:
        """Return a condition."""
        kinds = [
            "",
            "",
            f" AND \"customer\" = '{self._customer()}'",
            f' AND "customer" =~ /^({self._customer()}|{self._customer()})$/',
            f" AND (\"customer\" = '{self._customer()}' OR \"customer\" = '{self._customer()}')",
            f' AND "host" =~ /^{self._one("a", "(a|b)", ".*", "[bc]")}$/',
            f" AND \"host\" = '{self._one(*HOSTS)}'",
            f" AND \"host\" != '{self._one(*HOSTS)}' AND customer != 'acme'",
            f" AND dc = '{self._one('east', 'west', 'north')}'",
            " AND dc != 'east'",
            " AND value > 50",
            ' AND "load" < 5 AND customer =~ /./',
            " AND msg != 'ok'",
            " AND rare != 3.5",
            " AND up = true",
            " AND customer !~ /^(acme|wayne)$/",
            " AND customer = ''",
            " AND value * 2 > 40",
            " AND value > load",
            " AND (value > 60 OR load < 0 OR msg = 'down')",
            " AND (value > 60 OR rare > 5)",
            " AND msg =~ /o/ AND up != false",
            " AND load::float > 3.5",
            " AND host::tag = 'a' AND nothing = ''",
            " AND late + 1 = 3",
        ]
        return self._chance.choice(kinds)

    def _group(self, *, time: bool | None = None) -> str:
        """Return GROUP BY, fill and so on."""
        with_time = self._chance.random() < 0.7 if time is None else time
        interval = self._one("10m", "1m", "1h", "37m", "2h", "3h", "90s", "1d")
        parts = [f"time({interval}{self._maybe(self._one(', 5m', ', -7m', ', 90m'), 0.1)})"] if with_time else []
        parts += self._chance.choice(
            ([], [], ['"host"'], ['"customer"'], ["customer", "host"], ["dc"], ["*"], ["/o/"], ["nothing"])
        )
        if not parts:
            return ""
        self._chance.shuffle(parts)
        fill = self._maybe(f" fill({self._one('null', 'none', '0', 'previous', 'linear', '7.9', '-1', 'null')})", 0.8)
        return f" GROUP BY {', '.join(parts)}{fill if with_time else self._maybe(fill, 0.1)}"

    def _rest(self, *, limit: float = 0.2) -> str:
        order = self._maybe(f" ORDER BY time {self._one('DESC', 'ASC')}", 0.3)
        offset = self._maybe(f" OFFSET {self._chance.randrange(1, 9)}", 0.3)
        bounds = self._maybe(f" LIMIT {self._chance.randrange(1, 30)}{offset}", limit)
        return order + bounds + self._maybe(self._one(" tz('Europe/Berlin')", " tz('Asia/Kolkata')"), 0.08)

    def _from(self) -> str:
        return self._one(
            *['"cpu"'] * 8,
            '"mem"',
            '"net"',
            "disk",
            '"odd name"',
            "tiny",
            "cpu, mem",
            "/^(cpu|mem)$/",
            "nope",
            '"standard"."cpu"',
            "/.*/",
        )

    def _field(self) -> str:
        return self._one(
            *['"value"'] * 6,
            "load",
            "load",
            "up",
            "msg",
            "big",
            "rare",
            "late",
            "used",
            '"in"',
            "out",
            "free",
            '"my f"',
            "nofield",
            "host",
        )

    def _call(self) -> str:
        function = self._one("mean", "mean", "mean", "count", "sum", "min", "max", "first", "last", "spread")
        return f"{function}({self._field()})"

    def _dashboard(self) -> str:
        """Return what Grafana asks."""
        call = self._call()
        named = self._one(' AS "an alias"', " AS b")
        math = self._maybe(self._one(" * 2", " / 1024", " * 8 / 1000", " + 0.5", " - 3", " / 0"), 0.15)
        more = self._maybe(f", {self._call()}{self._maybe(named, 0.4)}", 0.2)
        alias = self._maybe(' AS "alias"', 0.15)
        return (
            f"SELECT {call}{math}{alias}{more} FROM {self._from()} WHERE {self._time()}{self._where()}"
            f"{self._group(time=self._chance.random() < 0.9)}{self._rest(limit=0.1)}"
        )

    def _aggregate(self) -> str:
        calls = [self._call() for _ in range(self._chance.randrange(1, 4))]
        if self._chance.random() < 0.2:
            calls.append(f"{self._call()} {self._one('+', '-', '*', '/')} {self._call()}")
        if self._chance.random() < 0.1:
            calls = [self._one("mean(*)", "count(*)", "max(/a/)", "first(*)", "sum(*)")]
        until = self._maybe(f" WHERE time < {END}{self._where()}", 0.9)
        bounded = self._chance.random() < 0.7  # else GROUP BY time() could begin in 1677, which kills influxd
        where = f" WHERE {self._time()}{self._where()}" if bounded else until
        group = self._group(time=self._chance.random() < 0.7 and bounded)
        if not bounded and where and self._chance.random() < 0.3:
            tags = self._one("", ", host", ", customer")
            group = f" GROUP BY time({self._one('10m', '1h')}){tags} fill({self._one('null', 'none', '0', 'previous')})"
            calls_only = f"SELECT {', '.join(calls)} FROM {self._from()}{where}{group}"
            return calls_only + self._maybe(f" ORDER BY time {self._one('DESC', 'ASC')}", 0.3)
        return f"SELECT {', '.join(calls)} FROM {self._from()}{where}{group}{self._rest()}"

    def _raw(self) -> str:
        fields = self._one(
            "*",
            "*",
            '"value"',
            "value, load",
            "*::field",
            "/a/",
            "host, value",
            "value * 2, load",
            "rare",
            "msg, up",
            "host",
            "value AS v, customer",
            "big",
            "late, value",
            "time, value",
            "abs(load)",
            "host::tag, *::field",
            *(
                "*::tag",
                "value, value",
                "value AS a, load AS a",
                "value + load",
                "msg, *",
                "load % 7",
                "value::integer",
            ),
        )
        group = self._one(
            "", "", "", " GROUP BY host", " GROUP BY customer", " GROUP BY *", " GROUP BY dc", " GROUP BY /o/"
        )
        return f"SELECT {fields} FROM {self._from()} WHERE {self._time()}{self._where()}{group}{self._rest(limit=0.4)}"

    def _any_function(self) -> str:
        call = self._one(
            *("percentile(value, 95)", "median(value)", "stddev(value)", "mode(load)", "count(distinct(load))"),
            *("distinct(load)", "derivative(mean(value), 1m)", "non_negative_derivative(max(value), 10s)"),
            *("difference(last(value))", "top(value, 2)", "bottom(value, host, 2)", "moving_average(mean(value), 3)"),
            *("cumulative_sum(sum(load))", "elapsed(first(value))", "max(value), host"),
            *(
                "derivative(value, 1s)",
                "sum(value) % 3",
                "max(load) % 4",
                "sum(load) & 12",
                "count(value) | 3",
                "min(load) ^ 5",
                "sum(load) % 0",
                "mean(value) % 0.3",
                "last(load) & value",
                "mean(value), median(value)",
            ),
        )
        function = self._one("mean", "max", "count", "sum", "last", "first", "spread")
        inner = f"{function}({self._one('value', 'load', 'big')})"
        windows = self._one(
            *(f"derivative({inner}, 1m)", f"non_negative_derivative({inner}, 1s)", f"non_negative_derivative({inner})"),
            *(f"difference({inner})", f"non_negative_difference({inner})", f"moving_average({inner}, 3)"),
            *(f"cumulative_sum({inner})", f"derivative({inner}, 10s) / 2, {inner}"),
        )
        if self._chance.random() < 0.5:
            tags = self._one("", ', "host"', ", customer", ", *")
            fill = self._maybe(f" fill({self._one('null', 'none', '0', 'previous', 'linear')})", 0.7)
            group = f" GROUP BY time({self._one('10m', '1m', '1h', '37m')}){tags}{fill}"
            where = f" WHERE {self._time()}{self._where()}"
            return f"SELECT {windows} FROM {self._from()}{where}{group}{self._rest(limit=0.1)}"
        by_customer = (" GROUP BY time(10m), customer", " GROUP BY customer, host", " GROUP BY time(30m), * fill(none)")
        group = self._one(*by_customer, " GROUP BY time(1h)", "")
        where = f" WHERE {self._time()}{self._where()}"
        return f"SELECT {call} FROM {self._from()}{where}{group}{self._rest(limit=0.1)}"

    def _subquery(self) -> str:
        inner = self._one(
            f"SELECT mean(value) AS x FROM cpu WHERE {self._time()}{self._where()} GROUP BY time(10m), customer",
            f"SELECT max(value) AS x FROM cpu WHERE customer = '{self._customer()}' GROUP BY host, time(10m)",
            f"SELECT value AS x, host FROM cpu WHERE customer = '{self._customer()}'",
            "SELECT value AS x FROM cpu GROUP BY customer",
            f"SELECT * FROM cpu WHERE customer = '{self._customer()}'",
        )
        outer = self._one("sum(x)", "mean(x)", "max(x)", "x", "*")
        group = self._one("", " GROUP BY customer", " GROUP BY time(1h), customer", " GROUP BY host")
        return f"SELECT {outer} FROM ({inner}) WHERE {self._time()}{group}"

    def _tag_condition(self) -> str:
        operation = self._one(
            *("= 'a'", "= 'east'", "= 'wayne'", "= ''", "=~ /[ab]/", "=~ /.*/", "=~ /e/"),
            *("!= 'a'", "!= 'east'", "!= ''", "!~ /e/", "!~ /.*/"),
        )
        return self._one(f"{self._one('dc', 'customer', 'host', 'nothing')} {operation}", f"time > {BORDER}")

    def _show(self) -> str:
        measurement = self._one(
            "", " FROM cpu", ' FROM "mem"', " FROM /.*/", " FROM cpu, net", " FROM nope", " FROM disk"
        )
        where = self._one("", "", f" WHERE customer = '{self._customer()}'", f" WHERE {self._tag_condition()}")
        where += self._maybe(f" {self._one('AND', 'OR')} {self._tag_condition()}", 0.3) if where else ""
        limit = self._maybe(f" LIMIT {self._chance.randrange(1, 5)}{self._maybe(' OFFSET 1')}", 0.2)
        keys = self._one("= host", '= "customer"', "IN (host, dc)", "=~ /o/", "!= host", "= nothing")
        like = self._one("", "", " WITH MEASUREMENT = cpu", " WITH MEASUREMENT =~ /m/")
        return self._one(
            "SHOW DATABASES",
            f"SHOW MEASUREMENTS{like}{where}{limit}",
            f"SHOW TAG KEYS{measurement}{where}{limit}",
            f"SHOW TAG VALUES{measurement} WITH KEY {keys}{where}{limit}",
            f"SHOW TAG VALUES{measurement} WITH KEY {keys}{where}{limit}",
            f"SHOW FIELD KEYS{measurement}{limit}",
            f"SHOW SERIES{measurement}{where}{limit}",
            "SHOW RETENTION POLICIES",
            "SHOW CONTINUOUS QUERIES",
            self._one("SHOW SERIES CARDINALITY", "SHOW SERIES EXACT CARDINALITY", "SHOW TAG KEY CARDINALITY"),
        )
