"""Sockets that are bound here."""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.transport.sockets import BoundSocket, Sockets
from testing.directories import short_directory

EVERYWHERE = ("", "0.0.0.0", "::")


class _Case(SynchronousTestCase):
    def keep(self, bound: BoundSocket) -> BoundSocket:
        """Close a socket when the test ends."""
        self.addCleanup(bound.close)
        return bound


class InetTests(_Case):
    """TCP and UDP."""

    def test_everywhere(self) -> None:
        """No address, and the one that stands for every address of IPv4 or IPv6, all mean both, by TCP and UDP."""
        for host in EVERYWHERE:
            tcp = self.keep(Sockets().tcp(host, 0)).socket
            tcp.listen()
            udp = self.keep(Sockets().udp(host, 0)).socket
            for client, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
                socket.create_connection((client, tcp.getsockname()[1])).close()
                with socket.socket(family, socket.SOCK_DGRAM) as sender:
                    sender.sendto(b"x", (client, udp.getsockname()[1]))
                udp.settimeout(10)
                self.assertEqual(udp.recv(10), b"x")

    def test_one_address(self) -> None:
        """An address means itself alone."""
        for host, other in (("127.0.0.1", "::1"), ("::1", "127.0.0.1")):
            bound = self.keep(Sockets().tcp(host, 0)).socket
            bound.listen()
            socket.create_connection((host, bound.getsockname()[1])).close()
            self.assertRaises(OSError, socket.create_connection, (other, bound.getsockname()[1]))

    def test_no_ipv6(self) -> None:
        """On a machine without IPv6 every address means those of IPv4."""
        create = socket.socket

        def without_ipv6(family: int = -1, *arguments: Any, **options: Any) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            return create(family, *arguments, **options)

        self.patch(socket, "socket", without_ipv6)
        for host in EVERYWHERE:
            for bound in (Sockets().tcp(host, 0), Sockets().udp(host, 0)):
                self.assertEqual(self.keep(bound).socket.getsockname()[0], "0.0.0.0")

    def test_taken(self) -> None:
        """An address that somebody else has, of IPv4 alone even, cannot be had."""
        with socket.socket() as taken:
            taken.bind(("0.0.0.0", 0))
            taken.listen()
            error = self.assertRaises(OSError, Sockets().tcp, "", taken.getsockname()[1])
        self.assertEqual(error.errno, errno.EADDRINUSE)


class UNIXTests(_Case):
    """Unix sockets."""

    def setUp(self) -> None:
        """Choose a path."""
        self.path = f"{short_directory(self)}/s"

    def test_mode(self) -> None:
        """The file has the mode that is asked for, and goes with the socket."""
        bound = Sockets().unix(self.path, 0o640)
        self.assertEqual(stat.S_IMODE(Path(self.path).stat().st_mode), 0o640)
        bound.close()
        self.assertFalse(Path(self.path).exists())

    def test_abandoned(self) -> None:
        """The file of a process that is gone is replaced."""
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(self.path)
            gone.listen()
        bound = self.keep(Sockets().unix(self.path, 0o666))
        bound.socket.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)

    def test_taken(self) -> None:
        """A socket on which somebody listens is left alone, and so is a file that is no socket."""
        bound = self.keep(Sockets().unix(self.path, 0o666))
        bound.socket.listen()
        file = f"{self.path}-file"
        Path(file).write_text("x")
        for path in (self.path, file):
            error = self.assertRaises(OSError, Sockets().unix, path, 0o666)
            self.assertEqual(error.errno, errno.EADDRINUSE)
            self.assertTrue(Path(path).exists())
