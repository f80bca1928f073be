"""What a reload changes of UDP listeners and their outputs."""

from __future__ import annotations

import socket
from typing import Any

from testing.reloading import ReloadCase
from testing.scripted import LINE, LOOPBACK, until
from testing.servers import free_port


class UDPTests(ReloadCase):
    """UDP listeners."""

    def packets(self, *outputs: str, name: str = "packets", bind: str = f"{LOOPBACK}:0", listener: str = "") -> str:
        """Return a configuration with a UDP listener."""
        lines = ["[[udp]]", f'name = "{name}"', f'bind-addr = "{bind}"', 'batch-timeout = "1ms"', listener]
        return "\n".join(lines + [f"[[udp.output]]\n{each}" for each in outputs])

    def send(self, *lines: bytes) -> None:
        """Send datagrams to the first listener."""
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for line in lines:
                sender.sendto(line, (LOOPBACK, self.listener._port.getHost().port))

    async def test_renamed(self) -> None:
        """A listener with another name at the same address is the same, with its counts."""
        port = free_port("udp")
        out = f'location = "{LOOPBACK}:9"'
        self.start(self.packets(out, bind=f"{LOOPBACK}:{port}"))
        self.send(LINE)
        await until(lambda: self.listener.protocol.lines_in)
        before = self.listener
        self.assertEqual(await self.reload(self.packets(out, name="new", bind=f"{LOOPBACK}:{port}")), ["new: name"])
        self.assertIs(self.listener, before)
        self.assertEqual((before.protocol.name, before.protocol.lines_in), ("new", 1))

    async def test_moved(self) -> None:
        """With another address datagrams are received there; the buffer is as large as configured."""
        ports = [free_port("udp"), free_port("udp")]
        one = self.backend()
        out = f'location = "{one.url}?db=d"'
        self.start(self.packets(out, bind=f"{LOOPBACK}:{ports[0]}"))
        self.send(b"a v=1 1")
        await until(lambda: one.requests)
        moved = self.packets(out, bind=f"{LOOPBACK}:{ports[1]}", listener="read-buffer = 9000")
        self.assertEqual(await self.reload(moved), ["packets: bind-addr, read-buffer"])
        self.assertEqual(self.listener._port.getHost().port, ports[1])
        self.send(b"a v=1 2")
        await until(lambda: len(one.requests) == 2)
        handle = self.listener._port.getHandle()
        self.assertEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), 18000)
        protocol = self.listener.protocol
        await until(lambda: protocol.numPorts == 1, "the end of the old port")
        self.assertIs(protocol.transport, self.listener._port)
        with socket.socket(type=socket.SOCK_DGRAM) as taken:
            taken.bind((LOOPBACK, 0))
            busy = self.packets(out, bind=f"{LOOPBACK}:{taken.getsockname()[1]}")
            self.assertIn("packets: cannot listen on", await self.refused(busy))
        self.send(b"a v=1 3")
        await until(lambda: len(one.requests) == 3)

    async def test_outputs(self) -> None:
        """Outputs come, go and move, of both kinds; what was collected before goes where it would have gone."""
        one, two = self.backend(), self.backend()
        with socket.socket(type=socket.SOCK_DGRAM) as first, socket.socket(type=socket.SOCK_DGRAM) as second:
            for each in (first, second):
                each.bind((LOOPBACK, 0))
                each.setblocking(False)
            places = [each.getsockname()[1] for each in (first, second)]
            late = 'batch-timeout = "1h"'
            text = self.packets(f'name = "one"\nlocation = "{one.url}?db=d"').replace('batch-timeout = "1ms"', late)
            self.start(text)
            self.send(b"a v=1 1")
            await until(lambda: self.listener.protocol.lines_in)
            outputs = [f'name = "one"\nlocation = "{two.url}?db=e"', f'name = "u"\nlocation = "{LOOPBACK}:{places[0]}"']
            changes = await self.reload(self.packets(*outputs))
            self.assertEqual(changes[1:], ["packets: output one: location", "packets: output u added"])
            await until(lambda: one.requests)
            self.send(b"a v=1 2")
            await until(lambda: two.requests)
            self.assertEqual((one.requests[0].query, one.requests[0].body), (b"db=d&precision=ns", b"a v=1 1\n"))
            self.assertEqual((two.requests[0].query, two.requests[0].body), (b"db=e&precision=ns", b"a v=1 2\n"))
            await until(lambda: _received(first) == b"a v=1 2")
            moved = f'name = "u"\nlocation = "localhost:{places[1]}"'
            self.assertEqual(await self.reload(self.packets(moved)), _MOVED)
            sender: Any = self.listener.outputs[0]
            await until(lambda: sender.address == (LOOPBACK, places[1]), "the look-up")
            self.send(b"a v=1 3")
            await until(lambda: _received(second) == b"a v=1 3")
            self.assertEqual(await self.reload(self.packets(outputs[0])), _BACK)
            await until(lambda: sender.transport is None)
            self.send(b"a v=1 4")
            await until(lambda: len(two.requests) == 2)

    async def test_with_a_journal(self) -> None:
        """Under a journal the outputs of a UDP listener come and go as those of any other."""
        one, two = self.backend(), self.backend()
        listener = f'journal = "{self.directory / "journal"}"'
        outputs = [f'name = "{name}"\nlocation = "{each.url}?db=d"' for name, each in (("one", one), ("two", two))]
        self.start(self.packets(outputs[0], listener=listener))
        self.send(b"a v=1 1")
        await until(lambda: one.requests)
        await self.reload(self.packets(*outputs, listener=listener))
        self.send(b"a v=1 2")
        await until(lambda: two.requests)
        await self.reload(self.packets(outputs[1], listener=listener))
        self.send(b"a v=1 3")
        await until(lambda: len(two.requests) == 2)
        self.assertEqual([each.body for each in one.requests], [b"a v=1 1\n", b"a v=1 2\n"])

    async def test_removed_before_the_batch(self) -> None:
        """What was collected for a backend that is removed is in the journal first, and then gets to it."""
        one, two = self.backend(), self.backend()
        listener = f'journal = "{self.directory / "journal"}"'
        outputs = [f'name = "{name}"\nlocation = "{each.url}?db=d"' for name, each in (("one", one), ("two", two))]
        self.start(self.packets(*outputs, listener=listener).replace('"1ms"', '"1h"'))
        self.send(b"a v=1 1")
        await until(lambda: self.listener.protocol.lines_in)
        await self.reload(self.packets(outputs[1], listener=listener))
        await until(lambda: not self.listener.leaving)
        self.assertEqual([each.body for each in one.requests], [b"a v=1 1\n"])
        await until(lambda: two.requests)


_MOVED = ["packets: output u: location", "packets: output one removed"]
_BACK = ["packets: output one added", "packets: output u removed"]


def _received(listener: socket.socket) -> bytes:
    """Return a datagram if there is one."""
    try:
        return listener.recv(1000)
    except BlockingIOError:
        return b""
