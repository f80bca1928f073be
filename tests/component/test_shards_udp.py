"""Lines over UDP for shards: through an output that is a listener with shards of the same relay."""

from __future__ import annotations

import socket

from testing.scripted import LOOPBACK, until
from testing.servers import free_port
from testing.shard_case import PLACES, ShardCase, sharded


class UDPTests(ShardCase):
    """From a datagram to the shards."""

    async def test_datagram(self) -> None:
        """The lines of a datagram go to the shards of their keys, and those without the tag to the default one."""
        port = free_port()
        udp = (
            f'[[udp]]\nname = "udp"\nbind-addr = "{LOOPBACK}:0"\nbatch-timeout = "10ms"\n'
            f'output = [{{ name = "shards", location = "http://{LOOPBACK}:{port}/write?db=db" }}]'
        )
        text = sharded(self.backends, default="s2", after=udp)
        self.start(text.replace(f'bind-addr = "{LOOPBACK}:0"', f'bind-addr = "{LOOPBACK}:{port}"', 1))
        lines = [b"m,t=%b v=1 1\n" % key for key in PLACES]
        where = self.service.listeners[-1].address()
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"".join(lines) + b"m v=1 1\n", (LOOPBACK, where.port))
        await until(lambda: len(self.bodies()) == 3, "the lines")
        expected: dict[str, bytes] = {}
        for line, shard in (*zip(lines, PLACES.values(), strict=True), (b"m v=1 1\n", "s2")):
            expected[shard] = expected.get(shard, b"") + line
        self.assertEqual(self.bodies(), expected)
