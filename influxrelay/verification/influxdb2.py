"""One InfluxDB 2.x server that is asked for its contents in InfluxQL, which knows a bucket by its mapping."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import attrs

from influxrelay.core.text import iso_nanoseconds
from influxrelay.influxql.unparsing import quoted
from influxrelay.verification.connection import NotFound, Unanswered
from influxrelay.verification.server import Row, Server
from influxrelay.verification.statements import EVERYTHING, Place, Window

_SYSTEM = ("_monitoring", "_tasks")  # buckets that each server fills by itself
_SECOND = 10**9
_YEAR_1 = (datetime(1970, 1, 1) - datetime(1, 1, 1)) // timedelta(seconds=1) * _SECOND  # noqa: DTZ001 (UTC)


@attrs.define
class InfluxDB2(Server):
    """A backend of InfluxDB 2.x.

    Its InfluxQL knows neither the settings of a retention policy nor shard groups (``v1/coordinator`` in its source).
    The settings are those of the bucket. A shard group begins at a multiple of the bucket's shard group duration, and
    counts if it has points. A bucket that has an explicit mapping, or to which the output writes what has another name,
    is not known by its virtual mapping.

    :ivar organization: by name.
    :ivar buckets: those to which the output writes what is not called ``db/rp``, or ``db``, there.
    """

    organization: str = ""
    buckets: tuple[tuple[str, str], ...] = ()
    _rules: dict[Place, tuple[int, int]] = attrs.field(factory=dict, init=False)  # seconds: kept, and of a shard group
    _mappings: list[dict[str, Any]] = attrs.field(factory=list, init=False)
    _bucket_names: dict[Place, str] = attrs.field(factory=dict, init=False)

    def databases(self) -> list[str]:
        """Return the databases to which buckets are mapped."""
        asked = {"org": self.organization}
        found = self._api("dbrps", asked)["content"]
        explicit = {each["bucketID"] for each in found if not each.get("virtual")}
        self._mappings = [
            each
            for each in found
            if not each.get("virtual") or (each["bucketID"] not in explicit and not self._is_renamed(each))
        ]
        names = dict.fromkeys(each["database"] for each in self._mappings)
        if not names and not self._api("buckets", asked)["buckets"]:
            raise Unanswered(
                f"{self.name}: its token cannot read any bucket of {self.organization};"
                " give another one with --token-file"
            )
        return [name for name in names if name not in _SYSTEM]

    def retention_policies(self, database: str) -> list[Row]:
        """Return the retention policies to which buckets are mapped, as SHOW RETENTION POLICIES does."""
        return [self._policy(each) for each in self._mappings if each["database"] == database]

    def _is_renamed(self, mapping: dict[str, Any]) -> bool:
        """Say whether the output writes something else to a bucket than its name says."""
        names = {mapping["database"], f"{mapping['database']}/{mapping['retention_policy']}"}
        return any(bucket in names and place not in names for place, bucket in self.buckets)

    def _policy(self, mapping: dict[str, Any]) -> Row:
        policy = mapping["retention_policy"]
        bucket = self._api(f"buckets/{mapping['bucketID']}")
        rule: dict[str, Any] = next(iter(bucket["retentionRules"]), {})
        kept, width = rule.get("everySeconds", 0), rule.get("shardGroupDurationSeconds", 0) or 7 * 86_400
        self._rules[mapping["database"], policy] = kept, width
        self._bucket_names[mapping["database"], policy] = bucket["name"]
        return {
            "name": policy,
            "duration": _duration(kept),
            "shardGroupDuration": _duration(width),
            "replicaN": 1,
            "default": mapping["default"],
        }

    def shard_groups(self, places: Iterable[Place]) -> list[Row]:
        """Return the shard groups that have points, as SHOW SHARD GROUPS does."""
        found: list[Row] = []
        for database, policy in places:
            kept, width = (seconds * _SECOND for seconds in self._rules[database, policy])
            since, until = ((time + _YEAR_1) // width for time in (EVERYTHING.since, EVERYTHING.until))
            for group in self._filled((database, policy), since, until + 1, width):
                row: Row = {"database": database, "retention_policy": policy}
                row |= {"start_time": iso_nanoseconds(group.since), "end_time": iso_nanoseconds(group.until)}
                found.append({**row, "expiry_time": iso_nanoseconds(min(group.until + kept, EVERYTHING.until))})
        return found

    def _filled(self, place: Place, first: int, behind: int, width: int) -> Iterator[Window]:
        """Yield those of some shard groups that have points."""
        window = Window(max(first * width - _YEAR_1, EVERYTHING.since), min(behind * width - _YEAR_1, EVERYTHING.until))
        source = ".".join(map(quoted, place))
        if window.length <= 0 or not self.ask(
            f"SELECT *::field FROM {source}./.*/ WHERE {window.condition} LIMIT 1"  # noqa: S608 (names are quoted)
        ):
            return
        if behind - first == 1:
            yield window
            return
        middle = (first + behind) // 2
        yield from self._filled(place, first, middle, width)
        yield from self._filled(place, middle, behind, width)

    def unmapped(self, place: Place) -> str:
        """Say that a bucket has no mapping, and what to do; empty if there is no such bucket."""
        database, policy = place
        known = dict(self.buckets)
        mapped = {each["bucketID"] for each in self._mappings}
        for name in self._names(place):
            try:
                found = self._api("buckets", {"org": self.organization, "name": name})["buckets"]
            except NotFound:
                continue
            for each in found:
                if name == known.get(database, database) and each["id"] in mapped:
                    continue  # that is for another retention policy
                return (
                    f'{self.name}: the bucket "{name}" has no mapping to {database}.{policy}; create it with: influx v1'
                    f" dbrp create --db {shlex.quote(database)} --rp {shlex.quote(policy)} --bucket-id {each['id']}"
                )
        return ""

    def why_not_created(self, place: Place) -> str:
        """Say how a bucket is created that is missing."""
        name = self._names(place)[0]
        return f"{self.name} has no bucket for it; create one with: influx bucket create --name {shlex.quote(name)}"

    def written_as(self, place: Place) -> Place:
        """Return what a write names so that the relay writes it to the bucket that is mapped."""
        bucket, known = self._bucket_names[place], dict(self.buckets)
        database, _, policy = bucket.partition("/")
        for each in (place, (place[0], ""), (database, policy)):
            name = "/".join(filter(None, each))
            if known.get(name, name) == bucket:
                return each
        return place

    def _names(self, place: Place) -> list[str]:
        """Return the buckets to which the relay may write what is for a retention policy."""
        known = dict(self.buckets)
        return list(dict.fromkeys(known.get(each, each) for each in ("/".join(place), place[0])))

    def _api(self, path: str, asked: dict[str, str] | None = None) -> Any:
        base = urlsplit(self.url).path.removesuffix("/query")
        return self.get(f"{base}/api/v2/{quote(path)}", asked or {}, json.loads)


def _duration(seconds: int) -> str:
    """Return a duration as Go writes it."""
    if not seconds:
        return "0s"
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
