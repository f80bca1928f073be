"""``influxrelay verify`` on real servers that know PromQL: Prometheus and VictoriaMetrics."""

from __future__ import annotations

import json
from typing import Any

from influxrelay.verification import samples
from testing.prometheus_case import DAY, PROMETHEUS, STALE, PrometheusCase, series, shown


class PrometheusTests(PrometheusCase):
    """Servers of both kinds."""

    async def compare(self, names: str, metric: str, *arguments: str) -> list[Any]:
        """Return what differs in a metric: kind, backends, first and last time, and samples."""
        words = ("verify", "--measurement", metric, "--json", *arguments)
        code, out, err = await self.run_command(config=self.config(names), command=words)
        found = json.loads(out)
        self.assertEqual((code, found["equal"]), (1, False) if found["differences"] else (0, True), err)
        self.said, self.compared = err, found["compared"]
        for each in found["differences"]:
            self.assertEqual((each["database"], each["retention_policy"], each["measurement"]), ("", "", metric))
        names_ = ("kind", "backend", "backends", "since", "until", "points")
        return [tuple(each[name] for name in names_ if name in each) for each in found["differences"]]

    async def test_differences(self) -> None:
        """A missing sample, another value and a series that only one has are found, whatever the servers are."""
        for pair in ("pq", "vw", "pv", "vq"):
            metric, (one, other) = f"m_{pair}", pair
            times = [-400 * DAY, -40 * DAY - 1, -40 * DAY, -DAY, -3 * 3_600_000, -61_000, -1000]
            for host in ("a", "b", 'c"\\\n é'):
                self.write(pair, series(metric, *((float(n), when) for n, when in enumerate(times)), host=host))
            self.assertEqual(await self.compare(pair, metric), [], self.said)
            self.assertEqual(self.compared["points"], 21)
            self.write(one, series(metric, (1.5, -30 * DAY), host="a"), series(metric, (1.0, -9 * DAY), host="new"))
            self.write(one, series(metric, (7.0, -2 * DAY), host="b"))
            self.write(
                other, series(metric, (8.0, -2 * DAY), host="b"), series(metric, (0.0, -5 * DAY), host="a", x="y")
            )
            end = {when: shown(when)[:-1].partition(".")[0] for when in (-30 * DAY, -9 * DAY, -5 * DAY, -2 * DAY)}
            self.assertEqual(
                [(each[0], each[1], each[2][:19], each[4]) for each in await self.compare(pair, metric)],
                [
                    ("missing", other, end[-30 * DAY], 1),
                    ("missing", other, end[-9 * DAY], 1),
                    ("missing", one, end[-5 * DAY], 1),
                    ("value", [one, other], end[-2 * DAY], 1),
                ],
            )

    async def test_large(self) -> None:
        """Many samples are compared by aggregates; what differs is found, and only some of the rest is read."""
        for name, number in (("FULL", 1000), ("SMALL", 100), ("PIECE", 4000)):
            self.patch(samples, name, number)
        for pair in ("pq", "vw", "pv"):
            metric = f"large_{pair}"
            everything = [
                series(metric, *((host + n / 8, -3 * DAY + n * 20_000 + host) for n in range(8000)), host=f"h{host}")
                for host in range(5)
            ]
            self.write(pair, *everything)
            self.assertEqual(await self.compare(pair, metric), [], self.said)
            self.assertIn("40000 samples", self.said.replace("points", "samples"))
            self.write(pair[0], series(metric, (5.0, -DAY - 7), host="h1"), series(metric, (1.0, -DAY), host="h9"))
            found = await self.compare(pair, metric)
            self.assertEqual([each[:2] for each in found], [("missing", pair[1])] * 2, found)
            self.assertEqual([each[4] for each in found], [1, 1])
            self.assertLess(self.compared["points"], 30_000)

    async def test_not_told(self) -> None:
        """Samples that are not a number, and those that VictoriaMetrics has twice, are no differences."""
        nothing = float("nan")
        self.write("pqvw", series("n", (1.0, -5000), (2.0, -3000)))
        self.write("v", series("n", (1.0, -5000), (STALE, -2000)))
        self.write("p", series("n", (nothing, -2500), (STALE, -1000)))
        for pair in ("pq", "vw", "pv"):
            self.assertEqual(await self.compare(pair, "n"), [])
        self.write("v", series("n", (3.0, -3000)))
        self.assertEqual([each[:2] for each in await self.compare("vw", "n")], [("value", ["v", "w"])])

    async def test_selected(self) -> None:
        """Only the time that is asked for is compared, to the millisecond."""
        self.write("pqvw", series("s", (1.0, -10_000), (2.0, -8000)))
        self.write("p", series("s", (3.0, -9000)))
        for since, until, number in ((-9000, -8999, 1), (-8999, -8000, 0), (-9500, -9000, 0)):
            found = await self.compare("pq", "s", "--since", shown(since), "--until", shown(until))
            self.assertEqual(len(found), number, (since, until))

    async def test_what_cannot_be_compared(self) -> None:
        """Backends without another of their kind, and those that are asked elsewhere, are named; the exit code is 2."""
        elsewhere = 'type = "prometheus"\nname = "x"\nlocation = "http://127.0.0.1:1/receive"'
        influxdb = 'name = "i"\nlocation = "http://127.0.0.1:1/write"'
        code, out, err = await self.run_command(config=self.config("p", elsewhere, influxdb), command=("verify",))
        self.assertEqual((code, out), (2, ""))
        for words in (
            "main has no two backends to compare",
            "x has its queries elsewhere than beside http://127.0.0.1:1/receive, and cannot be compared",
            "i is the only InfluxDB here, and cannot be compared",
            "p is the only Prometheus here, and cannot be compared",
        ):
            self.assertIn(words, err)
        self.write("pq", series("x", (1.0, 0)))
        both = self.config("pq", influxdb)
        command = ("verify", "--measurement", "x", "--json")
        code, out, err = await self.run_command(config=both, command=command)
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads(out)["not_compared"], ["i is the only InfluxDB here, and cannot be compared"])
        code, _, err = await self.run_command(config=both, command=("verify", "--database", "d"))
        self.assertEqual(code, 2)
        self.assertIn("p is a Prometheus backend, which has no databases", err)
        code, _, err = await self.run_command(config=both, command=("verify", "--measurement", "nothing"))
        self.assertEqual((code, "no backend has a metric nothing" in err), (2, True), err)
        path = 'endpoints = { query = "api/v1/query" }'
        tables = [f"{PROMETHEUS.format(each, self.servers[each].url + '/receive')}\n{path}" for each in "pq"]
        code, _, err = await self.run_command(config=self.config("", *tables), command=command)
        self.assertEqual(code, 0, err)
