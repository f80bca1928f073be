"""HAProxy and nginx as child processes, with the very files of ``etc``: only addresses and paths are replaced."""

from __future__ import annotations

import http
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from testing.servers import LOOPBACK, PROJECT, Server, ServerError, find_program, free_port, port_is_free, send

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RELAYS = ("10.0.0.11:9096", "10.0.0.12:9096")  # as the files of etc name them
SERVERS = ("10.0.0.21:8086", "10.0.0.22:8086")
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def replace(text: str, places: Mapping[str, str]) -> str:
    """Replace each of these words wherever it stands as a word; each must be there."""
    for old, new in places.items():
        text, count = re.subn(rf"(?<![\w.:/]){re.escape(old)}(?![\w.:/])", new.replace("\\", r"\\"), text)
        assert count, f"{old} is not in the file"
    return text


def without(text: str, *words: str) -> str:
    """Leave out the lines that begin with these words: only root can do what they say."""
    return re.sub(rf"(?m)^\s*(?:{'|'.join(words)})\b.*\n", "", text)


class HAProxy(Server):
    """``etc/haproxy.cfg`` before relays and servers at these addresses (``host:port``).

    Without servers it is ``etc/haproxy-relays.cfg``.

    :ivar url: what clients see as an InfluxDB.
    """

    def __init__(self, directory: str | Path, relays: Sequence[str], servers: Sequence[str] = ()) -> None:
        port, self.stats_port = free_port(), free_port()
        super().__init__(directory, [port, self.stats_port])
        self.url = f"http://{LOOPBACK}:{port}"
        self.port = port
        self.file = PROJECT / "etc" / ("haproxy.cfg" if servers else "haproxy-relays.cfg")
        self._socket = self.directory / "admin.sock"
        self._places = {
            ":8086": f"{LOOPBACK}:{port}",
            "127.0.0.1:8404": f"{LOOPBACK}:{self.stats_port}",
            "/run/haproxy/admin.sock mode": f"{self._socket} mode",
            **dict(zip(RELAYS, relays, strict=True)),
            **(dict(zip(SERVERS, servers, strict=True)) if servers else {}),
        }

    def write_configuration(self) -> Path:
        """Write the file that HAProxy reads."""
        text = replace(self.file.read_text(), self._places)
        if os.geteuid():
            text = without(text, "chroot", "user", "group")
        file = self.directory / "haproxy.cfg"
        file.write_text(text)
        return file

    def command(self) -> list[str]:
        """Return the command; ``-dW`` makes any warning an error."""
        return [find_program("haproxy", "haproxy"), "-db", "-dW", "-f", str(self.write_configuration())]

    def is_ready(self) -> bool:
        """Say whether the page for operators answers."""
        return send("GET", f"http://{LOOPBACK}:{self.stats_port}/;csv", timeout=1)[0] == http.HTTPStatus.OK

    def tell(self, command: str) -> str:
        """Give an operator's command, and return what HAProxy says."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self._socket))
            connection.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def states(self) -> dict[str, str]:
        """Return how each server of each backend is, by ``backend/server``: ``"UP"``, ``"DOWN"``, ...

        :raises OSError: there is no answer.
        :raises ValueError: the answer is no table.
        """
        _, body = send("GET", f"http://{LOOPBACK}:{self.stats_port}/;csv", timeout=5)
        names, *rows = [line.split(",") for line in body.decode().lstrip("# ").splitlines()]
        status = names.index("status")
        return {f"{row[0]}/{row[1]}": row[status].partition(" ")[0] for row in rows if len(row) > status}


class Nginx(Server):
    """A file of ``etc`` before relays at these addresses: HTTP at :attr:`port`, UDP at :attr:`udp_port`."""

    def __init__(
        self, directory: str | Path, relays: Sequence[str], udp_relays: Sequence[str], file: str = "nginx.conf"
    ) -> None:
        self.port, self.udp_port = free_port(), free_port("udp")
        super().__init__(directory, [self.port])
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._file = PROJECT / "etc" / file
        self._relays, self._udp_relays = relays, udp_relays

    def write_configuration(self) -> Path:
        """Write the file that nginx reads."""
        before, stream, after = self._file.read_text().partition("\nstream {")
        places = {
            "8087": f"{LOOPBACK}:{self.port}",
            "/run/nginx.pid": str(self.directory / "nginx.pid"),
            "/var/log/nginx/error.log": "stderr",
        }
        text = replace(before, {**places, **dict(zip(RELAYS, self._relays, strict=True))}) + stream
        udp_places = {"8089": f"{LOOPBACK}:{self.udp_port}", **dict(zip(RELAYS, self._udp_relays, strict=True))}
        text += replace(after, udp_places)
        if os.geteuid():
            kinds = {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"}
            paths = "".join(f"    {kind}_temp_path {self.directory / kind};\n" for kind in sorted(kinds))
            text = without(text, "user").replace("http {\n", f"http {{\n{paths}", 1)
        file = self.directory / "nginx.conf"
        file.write_text(text)
        return file

    def program(self) -> str:
        """Return nginx' path; the module for UDP must be there, too."""
        if not STREAM_MODULE.exists():
            raise ServerError(f"{STREAM_MODULE} is missing: apt-get install libnginx-mod-stream")
        return find_program("nginx", "nginx")

    def command(self) -> list[str]:
        """Return the command."""
        return [self.program(), "-e", "stderr", "-g", "daemon off;", "-c", str(self.write_configuration())]

    def check(self) -> str:
        """Return what ``nginx -t`` says of the file."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [self.program(), "-e", "stderr", "-t", "-c", str(self.write_configuration())]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stderr

    def is_ready(self) -> bool:
        """Say whether it listens."""
        return not port_is_free(self.port)
