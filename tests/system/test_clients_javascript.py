"""The client of InfluxDB 2.x for JavaScript, unchanged, in front of backends of all generations."""

from __future__ import annotations

import json

from twisted.internet.threads import deferToThread

from testing import node
from testing.client_case import COUNT, DB, NOW, ClientCase

CLIENT = "@influxdata/influxdb-client@1.35.0"
_WRITE = """
const { InfluxDB, Point } = require('@influxdata/influxdb-client');
const given = %s;
const api = new InfluxDB({ url: given.url, token: 'secret' }).getWriteApi('org', given.bucket, 's', {
  batchSize: given.batch, gzipThreshold: given.gzip, flushInterval: 0,
});
for (let number = given.start; number < given.start + given.count; number++) {
  const point = new Point('cpu').tag('host', 'a ' + number %% 3).intField('v', number).stringField('s', 'x "y"\\n');
  api.writePoint(point.timestamp(given.now + number));
}
api.close().then(() => console.log('{}'), (error) => {
  console.log(JSON.stringify({ status: error.statusCode, code: error.code, message: error.message }));
});
"""


class JavaScriptTests(ClientCase):
    """@influxdata/influxdb-client."""

    def write(self, start: int, *, batch: int = 7, gzip: int = 0, bucket: str = DB) -> dict[str, object]:
        """Write points in batches, those of more bytes than ``gzip`` compressed; return the error, if there is one."""
        given = {"url": self.url, "start": start, "count": COUNT, "now": NOW, "batch": batch, "gzip": gzip}
        script = _WRITE % json.dumps({**given, "bucket": bucket})
        error: dict[str, object] = json.loads(node.run(script, CLIENT))
        return error

    def write_all(self, start: int, **settings: int) -> None:
        """Write points, which the relay takes."""
        self.assertEqual(self.write(start, **settings), {})  # type: ignore[arg-type]

    async def test_batching(self) -> None:
        """Batches with gzip reach all servers, the one of 1.x that was down included."""
        await self.check_outage(self.influxds[0], self.write_all)
        self.assertEqual({each.headers.get("content-encoding") for each in self.two.asked}, {"gzip"})

    async def test_one_by_one(self) -> None:
        """Single points, uncompressed, reach all servers, the one of 2.x that was down included."""
        await self.check_outage(self.two, lambda start: self.write_all(start, batch=1, gzip=10**6))
        self.assertEqual({each.headers.get("content-encoding") for each in self.two.asked}, {None})

    async def test_refused(self) -> None:
        """The client reads the message of an error."""
        error = await deferToThread(self.write, 0, bucket="/rp")
        self.assertEqual((error["status"], error["code"]), (404, "not found"))
        self.assertIn("empty database", str(error["message"]))
