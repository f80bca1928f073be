"""Remote writes to a listener with shards."""

from __future__ import annotations

from influxrelay.remotewrite.bodies import count, series
from testing.remote_write import Timeseries, version_1
from testing.remote_write_case import INFLUXDB_PATH, of_body, packed, post, unpacked, written
from testing.scripted import answer
from testing.shard_case import PLACES, ShardCase

KEYS = [key.decode() for key in PLACES]
BORDER = 1_796_083_200_000  # milliseconds: 2026-12-01


def with_label(name: str, *times: int) -> list[Timeseries]:
    """Return a series for each key, which is the value of a label."""
    return [
        Timeseries({"__name__": "up", "job": "x", name: key}, [(1.0, time) for time in times or (1,)]) for key in KEYS
    ]


class RemoteWriteTests(ShardCase):
    """Series go to the shards of their labels."""

    def places(self, label: bytes, *, version: int = 1) -> dict[bytes, str]:
        """Return where each value of a label has arrived, and check that no series arrived twice."""
        found: dict[bytes, str] = {}
        for shard, (backend,) in self.backends.items():
            for each in filter(lambda one: one.body, backend.requests):  # a Prometheus is pinged elsewhere
                for one in series(unpacked(each.body), version=version):
                    self.assertNotIn(one.label(label), found)
                    found[one.label(label)] = shard
        return found

    async def test_by_label(self) -> None:
        """A remote write is divided by the label with the name of the tag; all of each series is in one shard."""
        self.begin()
        found = await self.ask(self.listener, post(with_label("t", 1, 2, 3), path=INFLUXDB_PATH))
        self.assertEqual(found.status, 204)
        self.assertEqual(self.places(b"t"), PLACES)
        bodies = [unpacked(one.requests[0].body) for (one,) in self.backends.values()]
        self.assertEqual(sum(count(each, version=1).samples for each in bodies), 3 * len(PLACES))

    async def test_by_name(self) -> None:
        """With the measurement as key the name decides."""
        self.begin(key="measurement")
        message = [Timeseries({"__name__": key, "job": "x"}, [(1.0, 1)]) for key in KEYS]
        self.assertEqual((await self.ask(self.listener, post(message))).status, 204)
        self.assertEqual(self.places(b"__name__"), PLACES)

    async def test_version_2(self) -> None:
        """A request of 2.0 is divided too; what the shards say that they have written is added up."""
        for (backend,) in self.backends.values():
            backend.script[0] = written(204, 2)
        self.begin(output=', type = "prometheus"')
        found = await self.ask(self.listener, post(with_label("t"), version=2))
        self.assertEqual((found.status, found.header("X-Prometheus-Remote-Write-Samples-Written")), (204, b"6"))
        self.assertEqual(self.places(b"t", version=2), PLACES)

    async def test_one_shard(self) -> None:
        """A remote write whose series have one shard arrives as it came, its metadata included."""
        self.begin()
        body = packed(version_1([Timeseries({"__name__": "up", "t": "a"}, [(1.0, 1)])], ["up"]))
        self.assertEqual((await self.ask(self.listener, of_body(body, path=INFLUXDB_PATH))).status, 204)
        ((backend,),) = [one for shard, one in self.backends.items() if shard == "s3"]
        self.assertEqual([each.body for each in backend.requests], [body])

    async def test_epochs(self) -> None:
        """The samples of a series go to the shards of their times, each with all labels."""
        self.begin(
            after='[[http.epoch]]\nshards = ["s1"]\n[[http.epoch]]\nsince = "2026-12-01T00:00:00Z"\nshards = ["s2"]'
        )
        times = (BORDER - 2, BORDER - 1, BORDER, -5)
        self.assertEqual((await self.ask(self.listener, post(with_label("t", *times)))).status, 204)
        for shard, samples in (("s1", 3), ("s2", 1)):
            (request,) = self.backends[shard][0].requests
            message = unpacked(request.body)
            self.assertEqual([one.label(b"t") for one in series(message, version=1)], list(PLACES))
            self.assertEqual(count(message, version=1).samples, samples * len(PLACES))

    async def test_without_the_label(self) -> None:
        """Without a default shard a request with a series that lacks the label is 400, and nothing of it is written."""
        self.begin()
        message = [*with_label("t"), Timeseries({"__name__": "up"}, [(1.0, 1)])]
        found = await self.ask(self.listener, post(message))
        self.assert_error(found, 400, 'unable to shard: a series lacks the label "t"')
        self.assertEqual(self.places(b"t"), {})

    async def test_default(self) -> None:
        """With a default shard such a series goes there."""
        self.begin(default="s1")
        self.assertEqual((await self.ask(self.listener, post(with_label("u")))).status, 204)
        self.assertEqual(set(self.places(b"u").values()), {"s1"})

    async def test_worst_answer(self) -> None:
        """A shard that refuses its part makes the answer 4xx, one that is down 5xx."""
        self.begin()
        self.backends["s1"][0].script[0] = answer(400, b"bad")
        self.assertEqual((await self.ask(self.listener, post(with_label("t")))).status, 400)
        await self.backends["s2"][0].stop()
        self.assertEqual((await self.ask(self.listener, post(with_label("t")))).status, 503)
