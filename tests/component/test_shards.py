"""A listener with shards: who gets which lines of a write, and what the client is told."""

from __future__ import annotations

import gzip
import json
from typing import Any

from twisted.logger import LogLevel, formatEvent

from influxrelay.operations.views import Request
from testing.logs import watch_events
from testing.reloading import http, to
from testing.scripted import answer, request, until
from testing.shard_case import PLACES, ShardCase, sharded

NOVEMBER, DECEMBER = b"1795000000000000000", b"1797000000000000000"
BODY = b"".join(b"m,t=%b v=%di 1\n" % (key, number) for number, key in enumerate(PLACES))
PARTS = {
    shard: b"".join(b"m,t=%b v=%di 1\n" % (key, n) for n, (key, its) in enumerate(PLACES.items()) if its == shard)
    for shard in ("s1", "s2", "s3")
}
BAD = answer(400, b'{"error":"unable to parse"}\n')


class SplitTests(ShardCase):
    """Lines go to the shards of their keys."""

    async def test_by_tag(self) -> None:
        """Each shard gets its lines in their order, and the client one answer."""
        self.begin()
        self.assertEqual((await self.submit(BODY)).status, 204)
        self.assertEqual(self.bodies(), PARTS)

    async def test_by_measurement(self) -> None:
        """The measurement may be the key, too."""
        self.begin(key="measurement")
        body = b"".join(b"%b,t=x v=1 1\n" % key for key in PLACES)
        self.assertEqual((await self.submit(body)).status, 204)
        self.assertEqual(
            {key: shard for shard, got in self.bodies().items() for key in got.split()[::3] for key in [key[:1]]},
            PLACES,
        )

    async def test_one_shard(self) -> None:
        """A write whose lines have one shard arrives as it came, and no other shard is asked."""
        self.begin()
        body = b"# first\nm,t=a v=1 1\n\nm,t=d v=2 2"
        self.assertEqual((await self.submit(body)).status, 204)
        self.assertEqual(self.bodies(), {"s3": body})

    async def test_escapes(self) -> None:
        """A value is compared as queries show it, and the tag is found behind others, strings and escapes."""
        self.begin(
            listener="", after='[[http.epoch]]\nshards = ["s1", "s2", "s3"]\npin = { "x, y=z" = "s2", "q" = "s1" }'
        )
        odd = b'm\\,t=n,s=\\,t\\=q,t=x\\,\\ y\\=z,u=1 v="a b,t=q c",w=1 1'
        self.assertEqual((await self.submit(odd + b"\nm,t=q v=1 1\n")).status, 204)
        self.assertEqual(self.bodies(), {"s2": odd + b"\n", "s1": b"m,t=q v=1 1\n"})

    async def test_stamped(self) -> None:
        """Lines without a timestamp get one, the same for each shard."""
        self.begin()
        self.assertEqual((await self.submit(b"m,t=a v=1\nm,t=b v=1\n")).status, 204)
        stamps = {body.split()[-1] for body in self.bodies().values()}
        self.assertEqual((len(self.bodies()), len(stamps)), (2, 1))

    async def test_gzip(self) -> None:
        """A compressed body is divided, too, and each part is compressed; for one shard it arrives as it came."""
        self.begin()
        found = await self.submit(gzip.compress(BODY), b"/write?db=db", b"Content-Encoding: gzip")
        self.assertEqual(found.status, 204)
        self.assertEqual(self.bodies(), PARTS)
        requests = [each for (one,) in self.backends.values() for each in one.requests]
        self.assertEqual([each.header("Content-Encoding") for each in requests], 3 * [b"gzip"])
        packed = gzip.compress(b"m,t=a v=1 1\n")
        self.assertEqual((await self.submit(packed, b"/write?db=db", b"Content-Encoding: gzip")).status, 204)
        self.assertEqual(self.backends["s3"][0].requests[-1].body, packed)

    async def test_large(self) -> None:
        """Of a write with many lines none is lost, and none is in two shards."""
        self.begin()
        lines = [b"m,t=%d,u=%d v=%d %d\n" % (n % 5000, n % 7, n, n) for n in range(20_000)]
        self.assertEqual((await self.submit(b"".join(lines))).status, 204)
        got = [line for body in self.bodies().values() for line in body.splitlines(keepends=True)]
        self.assertEqual(sorted(got), sorted(lines))

    async def test_other_apis(self) -> None:
        """Writes of 2.x and 3.x are divided in the same way."""
        self.begin()
        for target in (b"/api/v2/write?bucket=db", b"/api/v3/write_lp?db=db&precision=ns"):
            self.assertEqual((await self.submit(BODY, target)).status, 204, target)
        self.assertEqual(self.bodies(), {name: 2 * part for name, part in PARTS.items()})

    async def test_filters(self) -> None:
        """Filters of a shard's outputs take their lines out of its part."""
        self.begin(after='[[filter]]\noutputs = ["s10", "s20", "s30"]\nmeasurement-expression = "^m$"')
        self.assertEqual((await self.submit(BODY + b"n,t=a v=1 1\n")).status, 204)
        self.assertEqual(self.bodies(), PARTS)


class EpochTests(ShardCase):
    """Lines go to the shards of their times."""

    EPOCHS = """
        [[http.epoch]]
        shards = ["s1", "s2"]
        [[http.epoch]]
        since = "2026-12-01T00:00:00Z"
        shards = ["s3"]
        pin = { "p" = "s3" }
    """

    async def test_times(self) -> None:
        """The timestamp of a line decides by which epoch it is placed, in each precision."""
        self.begin(after=self.EPOCHS)
        self.assertEqual((await self.submit(b"m,t=a v=1 %b\nm,t=a v=2 %b\n" % (NOVEMBER, DECEMBER))).status, 204)
        later = b"m,t=a v=2 %b\n" % DECEMBER
        self.assertEqual(self.bodies().get("s3"), later)
        self.assertEqual(len(self.bodies()), 2)
        body = b"m,t=a v=1 %b\nm,t=a v=2 %b\n" % (NOVEMBER[:10], DECEMBER[:10])
        self.assertEqual((await self.submit(body, b"/write?db=db&precision=s")).status, 204)
        self.assertEqual(self.bodies()["s3"], later + b"m,t=a v=2 %b\n" % DECEMBER[:10])

    async def test_all_or_nothing(self) -> None:
        """So it does for writes of 3.x that are to be stored whole or not at all, which holds for each shard."""
        self.begin(after=self.EPOCHS)
        target = b"/api/v3/write_lp?db=db&precision=ns&accept_partial=false"
        self.assertEqual(
            (await self.submit(b"m,t=a v=1 %b\nm,t=a v=2 %b\n" % (NOVEMBER, DECEMBER), target)).status, 204
        )
        self.assertEqual(self.bodies()["s3"], b"m,t=a v=2 %b\n" % DECEMBER)

    async def test_added_by_a_reload(self) -> None:
        """A shard that a reload adds with a new epoch gets what is of its time, and the others keep the rest."""
        one, two, three = (self.backends.pop(name) for name in ("s1", "s2", "s3"))
        self.backends = {"s1": one, "s2": two}
        self.begin()
        await self.submit(b"m,t=a v=1 %b\nm,t=b v=1 %b\nm,t=c v=1 %b\n" % ((NOVEMBER,) * 3))
        before = self.bodies()
        self.backends["s3"] = three
        changes = await self.reload(sharded(self.backends, after=self.EPOCHS.replace("2026-12", "2036-12")))
        self.assertEqual(changes, ["main: epoch", "main/s3: added"])
        await self.submit(b"m,t=a v=1 %b\nm,t=b v=1 %b\nm,t=c v=1 %b\n" % ((NOVEMBER,) * 3))
        self.assertEqual(self.bodies(), {name: 2 * body for name, body in before.items()})
        await self.submit(b"m,t=a v=1 2296083200000000000\n")
        self.assertEqual(self.bodies()["s3"], b"m,t=a v=1 2296083200000000000\n")

    async def test_moved(self) -> None:
        """A reload that gives points that are there another shard says so."""
        self.begin()
        changes = await self.reload(sharded(self.backends, after=self.EPOCHS))
        self.assertIn("main: points that are written already belong to other shards now", "; ".join(changes))

    async def test_removed(self) -> None:
        """A shard that a reload removes gets what waits for it, and then nothing."""
        self.begin()
        self.backends.pop("s3")
        changes = await self.reload(sharded(self.backends))
        self.assertIn("main/s3: removed", changes)
        self.assertEqual((await self.submit(BODY)).status, 204)
        self.assertEqual(sum(body.count(b"\n") for body in self.bodies().values()), len(PLACES))


class ReloadTests(ShardCase):
    """What else a reload changes."""

    async def test_key_and_default(self) -> None:
        """Another key, or another default shard, holds for the next write, and is said to give points another place."""
        self.begin(default="s1")
        for settings, keys, expected in (
            ({"default": "s2"}, "main: default-shard", "s2"),
            ({"default": "s2", "key": "tag:u"}, "main: shard-key", "s3"),
        ):
            changes = await self.reload(sharded(self.backends, **settings))
            self.assertEqual(changes[0], keys)
            self.assertIn("belong to other shards now", changes[1])
            line = b"m,u=a v=%s 1\n" % expected[1:].encode()
            self.assertEqual((await self.submit(line)).status, 204)
            self.assertIn(line, self.bodies()[expected])

    async def test_weight(self) -> None:
        """Another weight holds for the next write."""
        self.begin()
        heavy = sharded(self.backends).replace('name = "s1"\noutput', 'name = "s1"\nweight = 1000\noutput')
        changes = await self.reload(heavy)
        self.assertEqual(changes[0], "main/s1: weight")
        self.assertEqual((await self.submit(BODY)).status, 204)
        self.assertEqual(self.bodies(), {"s1": BODY})

    async def test_outputs(self) -> None:
        """A backend that is added to a shard gets its writes, and the sender to the other stays."""
        self.begin()
        sender, more = self.service.listeners[1].senders[0], self.backend()
        changes = await self.reload(sharded({**self.backends, "s1": [*self.backends["s1"], more]}))
        self.assertEqual(changes, ["main/s1: output s11 added"])
        self.assertIs(self.service.listeners[1].senders[0], sender)
        self.assertEqual((await self.submit(BODY, b"/write?db=db&consistency=all")).status, 204)
        self.assertEqual(more.requests[-1].lines, PARTS["s1"])

    async def test_renamed_listener(self) -> None:
        """The shards of a listener with another name keep their senders and queues."""
        self.begin()
        senders = [each.senders[0] for each in self.service.listeners[1:]]
        changes = await self.reload(sharded(self.backends).replace('"main"', '"other"'))
        self.assertEqual(changes[0], "other: name")
        self.assertEqual([each.senders[0] for each in self.service.listeners[1:]], senders)
        self.assertEqual((await self.submit(BODY)).status, 204)

    async def test_begin_with_shards(self) -> None:
        """A listener with outputs gets no shards by a reload."""
        self.begin()
        (one,) = self.backends["s1"]
        found = await self.refused(
            f'[[http]]\nname = "main"\nbind-addr = "127.0.0.1:0"\n[[http.output]]\nlocation = "{one.url}"\n'
        )
        self.assertIn("http[0].shard: to begin or end with shards needs a restart", found)


class DefaultTests(ShardCase):
    """Lines without the tag, and lines that cannot be read."""

    async def test_without_a_default(self) -> None:
        """Without a default shard a write with a line that lacks the tag is 400, and nothing of it is written."""
        self.begin()
        for line in (b"m v=1 1", b"m,u=1 v=1 1", b"t,tt=a v=1 1", b"m,u=1 t=1 1"):
            found = await self.submit(BODY + line)
            self.assert_error(found, 400, 'unable to shard: a line lacks the tag "t"')
        self.assertEqual(self.bodies(), {})

    async def test_default(self) -> None:
        """With a default shard such lines go there."""
        self.begin(default="s2")
        self.assertEqual((await self.submit(b"m v=1 1\nm,t=c v=1 1\n")).status, 204)
        self.assertEqual(self.bodies(), {"s2": b"m v=1 1\n", "s1": b"m,t=c v=1 1\n"})

    async def test_malformed(self) -> None:
        """A malformed line goes to a backend, whose own error comes back; the other lines are written."""
        self.begin()
        self.backends["s1"][0].script[0] = BAD
        found = await self.submit(b"m,t=a v=1 1\nm,t= v=1 1\n")
        self.assertEqual((found.status, found.body), (400, b'{"error":"unable to parse"}\n'))
        self.assertEqual(self.bodies(), {"s1": b"m,t= v=1 1\n", "s3": b"m,t=a v=1 1\n"})

    async def test_blank(self) -> None:
        """Blank lines and comments between lines of several shards are left out."""
        self.begin()
        self.assertEqual((await self.submit(b"\n# one\nm,t=a v=1 1\n \n  # two\n  m,t=b v=1 1\n\t\n")).status, 204)
        self.assertEqual(self.bodies(), {"s3": b"m,t=a v=1 1\n", "s2": b"  m,t=b v=1 1\n"})


class AnswerTests(ShardCase):
    """One answer for several shards."""

    async def test_worst(self) -> None:
        """A 5xx comes before a 4xx, and that before a 2xx; the other shards have their lines."""
        self.begin()
        self.backends["s1"][0].script[0] = BAD
        self.assertEqual((await self.submit(BODY)).status, 400)
        self.backends["s2"][0].script[0] = answer(500, b'{"error":"engine"}\n')
        found = await self.submit(BODY)
        self.assertEqual((found.status, found.body), (500, b'{"error":"engine"}\n'))
        self.backends["s2"][0].script[0] = answer(429)
        self.assertEqual((await self.submit(BODY)).status, 429)

    async def test_shard_without_a_server(self) -> None:
        """Writes for a shard whose servers are down are answered 503; those for others go on."""
        down = await self.refusing_backend()
        self.backends["s1"] = [down]
        self.begin()
        self.assertEqual((await self.submit(b"m,t=c v=1 1\n")).status, 503)
        self.assertEqual((await self.submit(BODY)).status, 503)
        self.assertEqual((await self.submit(b"m,t=a v=1 1\nm,t=b v=1 1\n")).status, 204)

    async def test_consistency(self) -> None:
        """Consistency holds for each shard: all of its backends, and no other's."""
        self.backends["s1"].append(self.backend(answer(500)))
        self.begin(listener='consistency = "all"')
        self.assertEqual((await self.submit(b"m,t=a v=1 1\n")).status, 204)
        self.assertEqual((await self.submit(b"m,t=c v=1 1\n")).status, 503)
        self.assertEqual((await self.submit(b"m,t=c v=1 1\n", b"/write?db=db&consistency=one")).status, 204)

    async def test_queue(self) -> None:
        """What a shard's backend misses waits in its queue, and other shards' backends do not wait for it."""
        self.begin(output=", buffer-size-mb = 1", listener='consistency = "any"')
        first = self.backends["s1"][0]
        first.script[0] = answer(500)
        self.assertEqual((await self.submit(BODY)).status, 204)
        self.assertEqual((await self.submit(BODY)).status, 204)
        behind, *others = [each.senders[0].queues for each in self.service.listeners[1:]]
        await until(lambda: not any(each.outstanding()[0] for each in others), "the other shards")
        self.assertEqual(behind.outstanding()[0], 2)
        failed = len(first.requests)
        first.script[0] = answer(204)
        await until(lambda: not behind.outstanding()[0], "the queue")
        self.assertEqual(b"".join(each.lines for each in first.requests[failed:]), 2 * PARTS["s1"])

    async def test_journal(self) -> None:
        """Each shard has a journal of its own, which a restart reads on from."""
        self.begin(listener=f'journal = "{self.directory / "journal"}"\nconsistency = "any"')
        first = self.backends["s1"][0]
        first.script[0] = answer(500)
        self.assertEqual((await self.submit(BODY)).status, 204)
        self.assertEqual(sorted(each.name for each in (self.directory / "journal").iterdir()), ["s1", "s2", "s3"])
        await until(lambda: first.requests, "the first attempt")
        await self.service.stopService()
        failed = len(first.requests)
        first.script[0] = answer(204)
        self.begin(listener=f'journal = "{self.directory / "journal"}"')
        await until(lambda: len(first.requests) > failed, "the backlog")
        self.assertEqual(first.requests[-1].lines, PARTS["s1"])

    async def test_journal_of_a_pair(self) -> None:
        """What waits in the journal of a listener without shards is delivered from the directory of a shard."""
        first, journal = self.backends["s1"][0], self.directory / "journal"
        first.script[0] = answer(500)
        settings = f'journal = "{journal}"\nconsistency = "any"'
        self.start(http(to(first, "s10"), top='shutdown-timeout = "500ms"', listener=settings))
        self.assertEqual((await self.submit(BODY)).status, 204)
        await until(lambda: first.requests, "the first attempt")
        await self.service.stopService()
        journal.rename(self.directory / "s1")
        journal.mkdir()
        (self.directory / "s1").rename(journal / "s1")
        failed = len(first.requests)
        first.script[0] = answer(204)
        self.begin(listener=settings)
        await until(lambda: len(first.requests) > failed, "the backlog")
        self.assertEqual(first.requests[-1].lines, BODY)


class HealthTests(ShardCase):
    """What monitors and operators are told."""

    async def told(self, path: bytes) -> tuple[int, Any]:
        """Return the status and the body of an answer of the listener's own."""
        found = await self.ask(self.listener, request(path, method=b"GET"))
        return found.status, json.loads(found.body)

    async def test_health(self) -> None:
        """As long as one shard takes writes the listener is healthy, and says which do not; else it is not."""
        self.begin()
        await until(lambda: all(each.senders[0].status.is_known for each in self.service.listeners[1:]), "pings")
        status, body = await self.told(b"/health")
        self.assertEqual((status, body["message"]), (200, "ready for writes"))
        self.assertEqual([each["listener"] for each in body["checks"]], ["main/s1", "main/s2", "main/s3"])
        self.assertEqual((await self.told(b"/health/backends/s20"))[0], 200)
        for name, (backend,) in self.backends.items():
            await backend.stop()
            self.assertEqual((await self.submit(b"".join(b"m,t=%b v=1 1\n" % key for key in PLACES))).status, 503)
            status, body = await self.told(b"/health")
            self.assertIn(f"main/{name}: 0 of 1 backends can take writes", body["message"])
            self.assertEqual(status, 503 if name == "s3" else 200)
        self.assertEqual((await self.told(b"/ready"))[0], 200)

    async def test_status_and_queues(self) -> None:
        """Each shard is a listener of its own in the status, the metrics and the commands."""
        self.begin(output=", buffer-size-mb = 1")
        status = await self.service.describe()
        self.assertEqual([each["name"] for each in status["listeners"]], ["main", "main/s1", "main/s2", "main/s3"])
        told = await self.service.run(Request("queues", "main/s2"), lambda done, total: None)
        self.assertEqual([(each["listener"], each["backend"]) for each in told["queues"]], [("main/s2", "s20")])
        (info,) = [each for each in await self.service.collect() if each.name == "influxrelay_listener_info"]
        kinds = {sample.labels["listener"]: sample.labels["kind"] for sample in info.samples}
        self.assertEqual(kinds, {"main": "http", "main/s1": "shard", "main/s2": "shard", "main/s3": "shard"})

    async def test_dead_letters(self) -> None:
        """A write that a shard's backend refuses after the client's 204 is a dead letter of that shard alone."""
        self.begin(output=", buffer-size-mb = 1", listener='consistency = "any"')
        self.backends["s1"][0].script[0] = BAD
        self.assertEqual((await self.submit(BODY)).status, 204)
        await until(self.service.listeners[1].senders[0].backlog.dead_letters, "the dead letter")
        told = await self.service.run(Request("dead-letters list"), lambda done, total: None)
        self.assertEqual([each["listener"] for each in told["dead_letters"]], ["main/s1"])

    async def test_journal_from_before(self) -> None:
        """A journal in the place that holds those of the shards is warned of: nobody reads it."""
        events = watch_events(self)
        (self.directory / "journal").mkdir()
        (self.directory / "journal" / "journal.sqlite").touch()
        self.begin(listener=f'journal = "{self.directory / "journal"}"')
        warnings = [formatEvent(each) for each in events if each["log_level"] is LogLevel.warn]
        self.assertIn(f"main: {self.directory / 'journal'} holds a journal from before the shards", "".join(warnings))


class QueryTests(ShardCase):
    """Queries."""

    async def test_remote_reads(self) -> None:
        """A remote read of Prometheus is refused with the reason, and no backend is asked."""
        self.begin()
        found = await self.ask(self.listener, request(b"/api/v1/prom/read?db=db", method=b"POST"))
        self.assertEqual(found.status, 400)
        self.assertIn(b"shards", found.body)
