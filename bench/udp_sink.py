"""Counts the lines that arrive at UDP ports: ``python -m bench.udp_sink PORT...``.

Each line on standard input is answered with the counts so far; its end is the end.
"""

from __future__ import annotations

import select
import socket
import sys

from bench.scenarios import count_lines

_LOOPBACK = "127.0.0.1"
_BUFFER = 64 << 20  # bytes; a sink that falls behind for a moment is not the relay's loss
_SO_RCVBUFFORCE = 33  # socket(7); the socket module has no name for it
_AT_A_TIME = 256


def _bound(port: int) -> socket.socket:
    sink = socket.socket(type=socket.SOCK_DGRAM)
    try:
        sink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:  # not root: as much as net.core.rmem_max allows
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    sink.setblocking(False)
    try:
        sink.bind((_LOOPBACK, port))
    except OSError as error:
        sys.exit(f"{_LOOPBACK}:{port}: {error.strerror}")
    return sink


def _drain(sink: socket.socket, buffer: bytearray) -> int:
    lines = 0
    try:
        for _ in range(_AT_A_TIME):
            lines += count_lines(sink.recv_into(buffer))
    except BlockingIOError:
        pass
    return lines


def main() -> None:
    """Count until standard input ends."""
    counts = {_bound(int(port)): 0 for port in sys.argv[1:]}
    buffer = bytearray(65536)
    while True:
        readable, _, _ = select.select([sys.stdin, *counts], [], [])
        for sink in counts:
            if sink in readable:
                counts[sink] += _drain(sink, buffer)
        if sys.stdin in readable:
            if not sys.stdin.readline():
                return
            print(*counts.values(), flush=True)


if __name__ == "__main__":
    main()
