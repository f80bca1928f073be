"""Statements of InfluxQL, and what is known of each; and statements that are none.

A line of a table has a query, its kind, and the databases that it speaks of where the request's own is ``db``.
"""

from __future__ import annotations

import random

from testing.influxql_refused import refused

READS = """
SELECT a FROM m | SELECT | db
SELECT * FROM m | SELECT | db
SELECT *::field FROM m | SELECT | db
SELECT *::tag FROM m | SELECT | db
select a from m | SELECT | db
SELECT a, b FROM m | SELECT | db
SELECT a,b,c FROM m | SELECT | db
SELECT "a b" FROM "m n" | SELECT | db
SELECT a AS x FROM m | SELECT | db
SELECT a AS "x y", b AS z FROM m | SELECT | db
SELECT a FROM m, n | SELECT | db
SELECT a FROM m,n,o | SELECT | db
SELECT a FROM "other"."rp"."m" | SELECT | other
SELECT a FROM other..m | SELECT | other
SELECT a FROM other.rp.m | SELECT | other
SELECT a FROM "rp"."m" | SELECT | db
SELECT a FROM one..m, two..n | SELECT | one two
SELECT a FROM one..m, n | SELECT | db one
SELECT a FROM /cpu.*/ | SELECT | db
SELECT a FROM rp./cpu.*/ | SELECT | db
SELECT a FROM other.rp./cpu.*/ | SELECT | other
SELECT a FROM other../cpu.*/ | SELECT | other
SELECT a FROM /a\\/b/ | SELECT | db
SELECT /a.*/ FROM m | SELECT | db
SELECT mean(/a.*/) FROM m | SELECT | db
SELECT mean(a) FROM m | SELECT | db
SELECT MEAN(a) FROM m | SELECT | db
SELECT mean(*) FROM m | SELECT | db
SELECT mean(a), max(b) FROM m | SELECT | db
SELECT count(distinct(a)) FROM m | SELECT | db
SELECT count(DISTINCT a) FROM m | SELECT | db
SELECT DISTINCT a FROM m | SELECT | db
SELECT DISTINCT "a b" FROM m | SELECT | db
SELECT distinct(a) FROM m | SELECT | db
SELECT percentile(a, 95) FROM m | SELECT | db
SELECT percentile(a, 99.9) FROM m | SELECT | db
SELECT top(a, 3) FROM m | SELECT | db
SELECT top(a, host, 3) FROM m | SELECT | db
SELECT derivative(mean(a), 1s) FROM m GROUP BY time(1m) | SELECT | db
SELECT non_negative_derivative(max(a), 1s) AS r FROM m WHERE time > now() - 1h GROUP BY time(10s) fill(none) | SELECT | db
SELECT holt_winters(mean(a), 10, 4) FROM m GROUP BY time(1h) | SELECT | db
SELECT a + b FROM m | SELECT | db
SELECT a + b * c - d / e % f FROM m | SELECT | db
SELECT (a + b) * c FROM m | SELECT | db
SELECT -a FROM m | SELECT | db
SELECT +a FROM m | SELECT | db
SELECT -(a + 1) FROM m | SELECT | db
SELECT a & b | b ^ 3 FROM m | SELECT | db
SELECT a - -1 FROM m | SELECT | db
SELECT a::float, b::integer, c::string, d::boolean, e::tag, f::field FROM m | SELECT | db
SELECT a::unsigned FROM m | SELECT | db
SELECT mean(a) * 100 / max(b) FROM m | SELECT | db
SELECT 1.5 * a FROM m | SELECT | db
SELECT .5 * a FROM m | SELECT | db
SELECT a FROM m WHERE host = 'x' | SELECT | db
SELECT a FROM m WHERE host != 'x' | SELECT | db
SELECT a FROM m WHERE host <> 'x' | SELECT | db
SELECT a FROM m WHERE host =~ /x/ | SELECT | db
SELECT a FROM m WHERE host =~/x/ | SELECT | db
SELECT a FROM m WHERE host !~ /^(a|b)$/ | SELECT | db
SELECT a FROM m WHERE host = 'it\\'s' | SELECT | db
SELECT a FROM m WHERE host = 'a "quoted" word' | SELECT | db
SELECT a FROM m WHERE a > 1 AND b < 2 OR c >= 3 AND (d <= 4 OR e = 5) | SELECT | db
SELECT a FROM m WHERE a = true OR b = false | SELECT | db
SELECT a FROM m WHERE (((a > 1))) | SELECT | db
SELECT a FROM m WHERE time > now() - 1h | SELECT | db
SELECT a FROM m WHERE time > now() - 1h30m AND time < now() | SELECT | db
SELECT a FROM m WHERE time >= '2026-01-01T00:00:00Z' AND time < '2026-01-02' | SELECT | db
SELECT a FROM m WHERE time > 1500000000000000000 | SELECT | db
SELECT a FROM m WHERE time > 1500000000s | SELECT | db
SELECT a FROM m WHERE time > 1500000000000ms AND time < 1500000000001u | SELECT | db
SELECT a FROM m WHERE time > 10ns | SELECT | db
SELECT a FROM m WHERE time > 10µ | SELECT | db
SELECT a FROM m WHERE time > '2026-01-01' - 7d | SELECT | db
SELECT a FROM m WHERE now() - 1w < time | SELECT | db
SELECT mean(a) FROM m GROUP BY host | SELECT | db
SELECT mean(a) FROM m GROUP BY host, region | SELECT | db
SELECT mean(a) FROM m GROUP BY * | SELECT | db
SELECT mean(a) FROM m GROUP BY /ho.*/ | SELECT | db
SELECT mean(a) FROM m GROUP BY time(10m) | SELECT | db
SELECT mean(a) FROM m GROUP BY time(10m, 3m) | SELECT | db
SELECT mean(a) FROM m GROUP BY time(10m, -3m), * | SELECT | db
SELECT mean(a) FROM m GROUP BY time(10m, now()) | SELECT | db
SELECT mean(a) FROM m GROUP BY time(10m), host fill(0) | SELECT | db
SELECT mean(a) FROM m GROUP BY time(10m) fill(-1.5) | SELECT | db
SELECT mean(a) FROM m GROUP BY time(10m) fill(null) | SELECT | db
SELECT mean(a) FROM m GROUP BY time(10m) FILL(none) | SELECT | db
SELECT mean(a) FROM m GROUP BY time(10m) fill(previous) | SELECT | db
SELECT mean(a) FROM m GROUP BY time(10m) fill(linear) | SELECT | db
SELECT a FROM m ORDER BY time | SELECT | db
SELECT a FROM m ORDER BY time ASC | SELECT | db
SELECT a FROM m ORDER BY time DESC | SELECT | db
SELECT a FROM m ORDER BY DESC | SELECT | db
SELECT a FROM m LIMIT 10 | SELECT | db
SELECT a FROM m LIMIT 10 OFFSET 5 | SELECT | db
SELECT a FROM m SLIMIT 2 SOFFSET 1 | SELECT | db
SELECT a FROM m GROUP BY * ORDER BY time DESC LIMIT 1 OFFSET 2 SLIMIT 3 SOFFSET 4 | SELECT | db
SELECT a FROM m tz('Europe/Oslo') | SELECT | db
SELECT mean(a) FROM (SELECT a FROM m) | SELECT | db
SELECT mean(a) FROM (SELECT max(a) AS a FROM m GROUP BY time(1m)) GROUP BY time(1h) | SELECT | db
SELECT mean(a) FROM (SELECT a FROM one..m), (SELECT a FROM n) | SELECT | db one
SELECT mean(a) FROM (SELECT a FROM (SELECT a FROM other.rp.m)) | SELECT | other
SELECT a FROM m -- a comment | SELECT | db
SELECT a /* a comment */ FROM m | SELECT | db
SELECT a FROM m; | SELECT | db
SELECT "now" FROM m | SELECT | db
SELECT a.b FROM m | SELECT | db
SELECT "a"."b" FROM m | SELECT | db
EXPLAIN SELECT a FROM m | EXPLAIN | db
EXPLAIN ANALYZE SELECT a FROM other..m | EXPLAIN ANALYZE | other
SHOW DATABASES | SHOW DATABASES |
show databases | SHOW DATABASES |
SHOW USERS | SHOW USERS |
SHOW GRANTS FOR bob | SHOW GRANTS FOR |
SHOW QUERIES | SHOW QUERIES |
SHOW STATS | SHOW STATS |
SHOW STATS FOR 'httpd' | SHOW STATS |
SHOW DIAGNOSTICS | SHOW DIAGNOSTICS |
SHOW DIAGNOSTICS FOR 'build' | SHOW DIAGNOSTICS |
SHOW SHARDS | SHOW SHARDS |
SHOW SHARD GROUPS | SHOW SHARD GROUPS |
SHOW SUBSCRIPTIONS | SHOW SUBSCRIPTIONS |
SHOW CONTINUOUS QUERIES | SHOW CONTINUOUS QUERIES |
SHOW RETENTION POLICIES | SHOW RETENTION POLICIES | db
SHOW RETENTION POLICIES ON other | SHOW RETENTION POLICIES | other
SHOW MEASUREMENTS | SHOW MEASUREMENTS | db
SHOW MEASUREMENTS ON other | SHOW MEASUREMENTS | other
SHOW MEASUREMENTS ON "other" WITH MEASUREMENT =~ /c.*/ LIMIT 3 | SHOW MEASUREMENTS | other
SHOW MEASUREMENTS WITH MEASUREMENT = cpu | SHOW MEASUREMENTS | db
SHOW MEASUREMENTS WHERE host = 'a' ORDER BY time LIMIT 1 OFFSET 2 | SHOW MEASUREMENTS | db
SHOW MEASUREMENT CARDINALITY | SHOW MEASUREMENT CARDINALITY | db
SHOW MEASUREMENT EXACT CARDINALITY ON other | SHOW MEASUREMENT CARDINALITY | other
SHOW MEASUREMENT EXACT CARDINALITY FROM m WHERE a = 'b' GROUP BY c LIMIT 1 OFFSET 1 | SHOW MEASUREMENT CARDINALITY | db
SHOW SERIES | SHOW SERIES | db
SHOW SERIES ON other FROM m WHERE host = 'a' LIMIT 10 OFFSET 1 | SHOW SERIES | other
SHOW SERIES FROM /c.*/ | SHOW SERIES | db
SHOW SERIES CARDINALITY | SHOW SERIES CARDINALITY | db
SHOW SERIES EXACT CARDINALITY ON other | SHOW SERIES CARDINALITY | other
SHOW TAG KEYS | SHOW TAG KEYS | db
SHOW TAG KEYS ON other FROM m WHERE a = 'b' LIMIT 1 OFFSET 1 SLIMIT 1 SOFFSET 1 | SHOW TAG KEYS | other
SHOW TAG KEYS FROM rp.m | SHOW TAG KEYS | db
SHOW TAG KEY CARDINALITY | SHOW TAG KEY CARDINALITY | db
SHOW TAG KEY EXACT CARDINALITY ON other FROM m | SHOW TAG KEY CARDINALITY | other
SHOW TAG VALUES WITH KEY = host | SHOW TAG VALUES | db
SHOW TAG VALUES ON other FROM m WITH KEY = "ho st" WHERE a = 'b' | SHOW TAG VALUES | other
SHOW TAG VALUES FROM m WITH KEY IN (a, "b", c) LIMIT 5 | SHOW TAG VALUES | db
SHOW TAG VALUES WITH KEY =~ /h.*/ | SHOW TAG VALUES | db
SHOW TAG VALUES WITH KEY !~ /h.*/ ORDER BY time DESC LIMIT 1 OFFSET 2 | SHOW TAG VALUES | db
SHOW TAG VALUES WITH KEY != host | SHOW TAG VALUES | db
SHOW TAG VALUES FROM a, b WITH KEY = host | SHOW TAG VALUES | db
SHOW TAG VALUES FROM one..a WITH KEY = host | SHOW TAG VALUES | one
SHOW TAG VALUES CARDINALITY WITH KEY = host | SHOW TAG VALUES CARDINALITY | db
SHOW TAG VALUES EXACT CARDINALITY ON other FROM m WITH KEY = host WHERE a = 'b' GROUP BY c LIMIT 1 OFFSET 1 | SHOW TAG VALUES CARDINALITY | other
SHOW FIELD KEYS | SHOW FIELD KEYS | db
SHOW FIELD KEYS ON other FROM m, n LIMIT 3 OFFSET 1 | SHOW FIELD KEYS | other
SHOW FIELD KEYS FROM "rp"./.*/ | SHOW FIELD KEYS | db
SHOW FIELD KEY CARDINALITY | SHOW FIELD KEY CARDINALITY | db
SHOW FIELD KEY EXACT CARDINALITY ON other | SHOW FIELD KEY CARDINALITY | other
"""
CHANGES = """
SELECT a INTO n FROM m | SELECT | db
SELECT a INTO rp.n FROM m | SELECT | db
SELECT a INTO other.rp.n FROM m | SELECT | db other
SELECT a INTO other..n FROM m | SELECT | db other
SELECT * INTO other.rp.:MEASUREMENT FROM /.*/ GROUP BY * | SELECT | db other
SELECT mean(a) INTO "x"."y"."z" FROM one.two.three WHERE time > now() - 1h GROUP BY time(1m), * | SELECT | one x
CREATE DATABASE d | CREATE DATABASE | d
CREATE DATABASE d WITH DURATION 1d | CREATE DATABASE | d
CREATE DATABASE d WITH DURATION INF REPLICATION 1 SHARD DURATION 1h NAME n | CREATE DATABASE | d
CREATE DATABASE d WITH NAME n | CREATE DATABASE | d
CREATE DATABASE d WITH REPLICATION 2 NAME n | CREATE DATABASE | d
CREATE DATABASE d WITH SHARD DURATION 30m | CREATE DATABASE | d
DROP DATABASE d | DROP DATABASE | d
CREATE RETENTION POLICY p ON d DURATION 1d REPLICATION 1 | CREATE RETENTION POLICY | d
CREATE RETENTION POLICY "p p" ON d DURATION INF REPLICATION 1 SHARD DURATION 1h DEFAULT | CREATE RETENTION POLICY | d
ALTER RETENTION POLICY p ON d DURATION 2d | ALTER RETENTION POLICY | d
ALTER RETENTION POLICY p ON d DEFAULT | ALTER RETENTION POLICY | d
ALTER RETENTION POLICY DEFAULT ON d REPLICATION 2 | ALTER RETENTION POLICY | d
ALTER RETENTION POLICY p ON d SHARD DURATION 1h DURATION 1d REPLICATION 1 DEFAULT | ALTER RETENTION POLICY | d
DROP RETENTION POLICY p ON d | DROP RETENTION POLICY | d
CREATE USER bob WITH PASSWORD 'secret' | CREATE USER |
CREATE USER bob WITH PASSWORD 'secret' WITH ALL PRIVILEGES | CREATE USER |
SET PASSWORD FOR bob = 'secret' | SET PASSWORD FOR |
DROP USER bob | DROP USER |
GRANT ALL TO bob | GRANT |
GRANT ALL PRIVILEGES TO bob | GRANT |
GRANT READ ON d TO bob | GRANT | d
GRANT WRITE ON d TO bob | GRANT | d
GRANT ALL ON d TO bob | GRANT | d
GRANT ALL PRIVILEGES ON d TO bob | GRANT | d
REVOKE ALL FROM bob | REVOKE |
REVOKE ALL PRIVILEGES FROM bob | REVOKE |
REVOKE READ ON d FROM bob | REVOKE | d
REVOKE ALL ON d FROM bob | REVOKE | d
DELETE FROM m | DELETE | db
DELETE FROM m WHERE time < '2026-01-01' | DELETE | db
DELETE WHERE time < now() - 1h | DELETE | db
DELETE FROM /m.*/ WHERE host = 'a' | DELETE | db
DROP SERIES FROM m | DROP SERIES | db
DROP SERIES FROM m, n WHERE host = 'a' | DROP SERIES | db
DROP SERIES WHERE host =~ /a/ | DROP SERIES | db
DROP MEASUREMENT m | DROP MEASUREMENT | db
DROP MEASUREMENT "m m" | DROP MEASUREMENT | db
CREATE CONTINUOUS QUERY q ON d BEGIN SELECT mean(a) INTO n FROM m GROUP BY time(1h) END | CREATE CONTINUOUS QUERY | d
CREATE CONTINUOUS QUERY q ON d RESAMPLE EVERY 1m FOR 2h BEGIN SELECT mean(a) INTO x.y.n FROM m GROUP BY time(1h), * END | CREATE CONTINUOUS QUERY | d x
CREATE CONTINUOUS QUERY q ON d RESAMPLE FOR 2h BEGIN SELECT mean(a) INTO n FROM m GROUP BY time(1h) END | CREATE CONTINUOUS QUERY | d
CREATE CONTINUOUS QUERY q ON d BEGIN SELECT a INTO n FROM m END | CREATE CONTINUOUS QUERY | d
CREATE CONTINUOUS QUERY q ON d BEGIN SELECT mean(a) INTO n FROM e..m WHERE time > now() - 1d GROUP BY time(1h) fill(0) END | CREATE CONTINUOUS QUERY | d e
DROP CONTINUOUS QUERY q ON d | DROP CONTINUOUS QUERY | d
CREATE SUBSCRIPTION s ON d.p DESTINATIONS ALL 'udp://h:1' | CREATE SUBSCRIPTION | d
CREATE SUBSCRIPTION s ON "d"."p" DESTINATIONS ANY 'udp://h:1', 'http://h:2' | CREATE SUBSCRIPTION | d
DROP SUBSCRIPTION s ON d.p | DROP SUBSCRIPTION | d
"""
OF_ONE_SERVER = """
DROP SHARD 3 | DROP SHARD |
KILL QUERY 36 | KILL QUERY |
KILL QUERY 36 ON "host:8088" | KILL QUERY |
"""


def table(text: str) -> list[tuple[str, str, frozenset[str]]]:
    """Return query, kind and databases of each line."""
    found = []
    for line in text.strip().splitlines():
        query, kind, databases = line.rsplit(" |", 2)
        found.append((query.strip(), kind.strip(), frozenset(databases.split())))
    return found


def mutated(seed: int, count: int) -> list[str]:
    """Return statements that were changed by chance: some still make sense, most do not."""
    chance = random.Random(seed)
    correct = [query for text in (READS, CHANGES, OF_ONE_SERVER) for query, _, _ in table(text)]
    everything = [*correct, *refused()]
    words = sorted({word for query in everything for word in query.split()})
    pieces = [*words, *"()'\",;./*=~!<>-+$0123456789\\", " ", "\n", "--", "/*", "*/", "::", "/x/", "1h", "'a'", '"b"']
    found = []
    for _ in range(count):
        query = chance.choice(correct)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            tokens = query.split(" ")
            at = chance.randrange(len(tokens))
            kind = chance.randrange(8)
            if kind == 0:
                del tokens[at]
            elif kind == 1:
                tokens.insert(at, chance.choice(pieces))
            elif kind == 2:
                tokens[at] = chance.choice(words)
            elif kind == 3:
                other = chance.choice(everything).split(" ")
                tokens = tokens[:at] + other[chance.randrange(len(other)) :]
            else:
                place = chance.randrange(len(query) + 1)
                tokens = [query[:place] + chance.choice(pieces) + query[place + chance.randrange(3) :]]
            query = " ".join(tokens)
        found.append(query)
    return found
